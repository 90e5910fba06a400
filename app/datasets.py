"""Data sets: the built-in ones by name, and uploads, parsed once and kept in the store in a form of our own."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import prod
from typing import Any, Literal, cast

import numpy as np
from sqlalchemy import delete as sql_delete
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import artifacts
from app.data import boxes, builtins, inputs, prepared
from app.data.table import Table
from app.db import after_commit, stream, transaction
from app.errors import Conflict, NotFound
from app.spec.data import Column, Schema
from app.spec.faults import nearest
from app.spec.intake import Intake, UploadOptions
from app.spec.lookup import Missing
from app.tables import Dataset, Edge, Job

MOST_PREVIEWED = 1_000_000


State = Literal["preparing", "ready", "failed"]


@dataclass(frozen=True)
class DatasetEntry:
    """A data set, built in or uploaded. `sha256` is of the bytes that were sent; of a built-in, of its content.

    Jobs may name it when it is `ready`, and so has a schema. `progress`: (done, total) while it is `preparing`; `errors`: why it `failed`.
    """

    id: str
    name: str
    builtin: bool
    format: str | None
    description: str | None
    bytes: int | None
    sha256: str
    created_at: datetime | None
    schema: Schema | None
    state: State = "ready"
    progress: tuple[int, int] | None = None
    errors: Sequence[dict[str, Any]] | None = None
    intake: Intake | None = None
    options: UploadOptions | None = None


def get(session: Session, ref: str) -> DatasetEntry:
    """The data set that `ref` names. Raises NotFound, with the nearest name."""
    try:
        return find(session, ref)
    except Missing as missing:
        raise NotFound(f"There is no such data set; {missing.hint}.") from None


def find(session: Session, ref: str) -> DatasetEntry:
    """As `get`, for specs: raises Missing."""
    if ref in builtins.BUILTINS:
        return _built_in(ref)
    row = session.get(Dataset, ref)
    if row is None:
        raise _missing(session, ref)
    return uploaded(row)


def schema(session: Session, ref: str) -> Schema:
    """The schema of a data set that jobs may name. Raises Missing."""
    found = find(session, ref)
    if found.schema is None:
        raise _not_ready(ref, found.state)
    return found.schema


def entry(session: Session, ref: str) -> dict[str, Any]:
    """A data set's entry in a trainer's assignment: `id`, `schema`, `sha256`, and `path`, which is null for a built-in.

    Until the transaction ends, the data set cannot be deleted: a job that is being submitted will find it. Raises Missing.
    """
    if ref not in builtins.BUILTINS:
        row = session.scalars(
            select(Dataset).where(Dataset.id == ref).with_for_update(read=True, key_share=True)
        ).one_or_none()
        if row is None:
            raise _missing(session, ref)
        if row.prepared_sha256 is None:
            raise _not_ready(ref, row.state)
        return {
            "id": row.id,
            "schema": row.schema,
            "path": str(artifacts.blob(row.prepared_sha256)),
            "sha256": row.sha256,
        }
    dataset = _built_in(ref)
    return {
        "id": ref,
        "schema": builtins.schema(ref).model_dump(mode="json"),
        "path": None,
        "sha256": dataset.sha256,
    }


def page(
    session: Session, *, limit: int = 50, before: str | None = None, sha256: str | None = None
) -> Generator[DatasetEntry]:
    """Uploads, the newest first, then the built-in ones; at most `limit`, from behind the data set with id `before`. A few at a time are in
    memory. `sha256`: those of these bytes alone."""
    names = list(builtins.BUILTINS)
    left = names[names.index(before) + 1 :] if before in names else names
    left = [name for name in left if sha256 is None or builtins.sha256(name) == sha256]
    if before in names:
        yield from map(_built_in, left[:limit])
        return
    query = select(Dataset).order_by(Dataset.id.desc()).limit(limit)
    if sha256 is not None:
        query = query.where(Dataset.sha256 == sha256)
    if before is not None:
        query = query.where(Dataset.id < before)
    for row in stream(session, query):
        yield uploaded(row)
        limit -= 1
    yield from map(_built_in, left[:limit])


def delete(session: Session, ref: str) -> None:
    """Forgets an upload, bytes and all.

    Raises:
        NotFound: there is none of that id.
        Conflict: it is built in, or a job or a kept model still rests on it; the detail names them.
    """
    if ref in builtins.BUILTINS:
        raise Conflict("A built-in data set cannot be deleted; it takes no room.")
    row = session.scalars(select(Dataset).where(Dataset.id == ref).with_for_update()).one_or_none()
    if row is None:
        raise NotFound("There is no such data set; GET /v1/datasets lists them.")
    jobs = session.execute(
        select(Job.id, Job.finished_at).where(Job.datasets.contains([{"id": ref}])).order_by(Job.id)
    ).all()
    waiting = [job for job, finished in jobs if finished is None]
    if waiting:
        raise Conflict(
            f"Jobs that have not finished need it: {_some(waiting)}. Cancel them first.", code="dataset_in_use"
        )
    models = session.scalars(select(Edge.model_id).where(Edge.target == ref).order_by(Edge.model_id)).all()
    kept = [*(job for job, _ in jobs), *models]
    if kept:
        raise Conflict(f"Kept jobs and models rest on it: {_some(kept)}. Delete those first.", code="dataset_in_use")
    stored = [sha256 for sha256 in (row.prepared_sha256, row.raw_sha256) if sha256 is not None]
    session.delete(row)
    session.flush()
    after_commit(session, lambda: artifacts.collect(stored))


def preview(session: Session, ref: str, n: int = 10) -> Iterator[dict[str, Any]]:
    """The first `n` rows, one after another: `input` as predict takes it, and each column in words: a class, a number, the labels that
    are set, tokens with their tags, null.

    Of large pictures fewer rows, as many as hold `MOST_PREVIEWED` numbers, and one at least. Raises NotFound.
    """
    dataset = get(session, ref)
    if dataset.schema is None:
        raise Conflict(f"This data set is {dataset.state}; it has no rows to show.", code="dataset_not_ready")
    shape = dataset.schema.input
    n = max(1, min(n, MOST_PREVIEWED // prod(shape.shape)))
    if dataset.builtin:
        table = builtins.load(ref)
    else:
        row = session.get(Dataset, ref)
        if row is None:
            raise NotFound("There is no such data set any more: it has just been deleted.")
        assert row.prepared_sha256 is not None, "what has a schema has rows"
        table = prepared.head(artifacts.blob(row.prepared_sha256), n)
    show = inputs.of(shape.kind).preview
    rows = table.inputs[np.arange(min(n, len(table)))]
    for number, row in enumerate(rows):
        yield {"input": show(row, shape)} | {name: _cell(table, name, number, row) for name in table.columns}


def of_bytes(sha256: str, format: str, options: UploadOptions) -> DatasetEntry | None:
    """The data set of these bytes, read so; None where there is none. One that failed is forgotten: its bytes may be tried again."""
    asked = (
        Dataset.sha256 == sha256,
        Dataset.format == format,
        Dataset.targets == options.targets,
        Dataset.options == option_key(options),
    )
    with transaction() as session:
        session.execute(sql_delete(Dataset).where(*asked, Dataset.state == "failed"))
        row = session.scalars(select(Dataset).where(*asked)).one_or_none()
        return None if row is None else uploaded(row)


def option_key(options: UploadOptions) -> dict[str, Any]:
    """The options of an upload besides its targets, without those that nobody gave."""
    return options.model_dump(mode="json", exclude={"targets"}, exclude_defaults=True)


def unfinished() -> list[tuple[str, str, UploadOptions, str]]:
    """(id, format, options, hash of the bytes that were sent) of the data sets that are being prepared."""
    with transaction() as session:
        rows = session.scalars(select(Dataset).where(Dataset.state == "preparing").order_by(Dataset.id).limit(100))
        return [
            (
                row.id,
                row.format,
                _options(row),
                row.raw_sha256,
            )
            for row in rows
            if row.raw_sha256 is not None
        ]


def uploaded(row: Dataset) -> DatasetEntry:
    return DatasetEntry(
        row.id,
        row.name,
        False,
        row.format,
        None,
        row.bytes,
        row.sha256,
        row.created_at,
        None if row.schema is None else Schema.model_validate(row.schema),
        cast("State", row.state),
        None if row.progress is None else (row.progress[0], row.progress[1]),
        row.errors,
        None if row.intake is None else Intake.model_validate(row.intake),
        _options(row),
    )


def _options(row: Dataset) -> UploadOptions:
    return UploadOptions.model_validate_json(json.dumps({**row.options, "targets": row.targets}))


def _built_in(name: str) -> DatasetEntry:
    about = builtins.about(name)
    words = builtins.BUILTINS[name].description
    return DatasetEntry(name, name, True, None, words, about.bytes, about.sha256, None, about.table_schema)


def _not_ready(ref: str, state: str) -> Missing:
    if state == "failed":
        return Missing(ref, "this data set could not be read", f"GET /v1/datasets/{ref} says why")
    return Missing(
        ref,
        "this data set is still being prepared",
        f"GET /v1/datasets/{ref} says how far it is; submit the job when its state is ready",
    )


def _missing(session: Session, ref: str) -> Missing:
    recent = select(Dataset.id).order_by(Dataset.id.desc()).limit(100)
    names = [*builtins.BUILTINS, *(session.scalars(recent) if ref.startswith("ds_") else ())]
    return Missing(ref, "there is no such data set", nearest(ref, names, "data sets"))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _cell(table: Table, name: str, number: int, row: np.ndarray) -> Any:
    """A column's value in words. `number`: of the row; `row`: its inputs."""
    column: Column = table.schema.columns[name]
    value = table.columns[name][number]
    if column.type == "category":
        return (column.classes or [])[int(value)] if value >= 0 else None
    if value.dtype.kind == "i":
        return _tags(row, value, column.classes or [])
    if np.isnan(value).all() or (column.type == "number" and np.isnan(value).any()):
        return None
    if column.type == "labels":
        return [label for label, there in zip(column.classes or [], value, strict=True) if there == 1]
    if column.classes is not None and value.ndim == 2:
        return boxes.in_words(value, column.classes, table.schema.input.shape)
    return value.tolist()


def _tags(row: np.ndarray, codes: np.ndarray, classes: Sequence[str]) -> list[list[str]] | None:
    """[token, tag] of each token of a text; None: it has no label. See `Column`."""
    edges = np.flatnonzero(np.diff(codes >= 0, prepend=False, append=False))
    tokens = [
        [row[start:end].tobytes().decode("utf-8", "replace"), classes[codes[start]]]
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]
    return tokens or None
