"""Data sets: the built-in ones by name, and uploads, parsed once and kept in the store in a form of our own."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import artifacts, ids
from app.data import builtins, inputs, prepared, uploads
from app.data.names import fault_in_label
from app.data.table import Table
from app.data.upload_limits import UploadLimits
from app.db import after_commit, stream, transaction
from app.errors import Conflict, NotFound
from app.settings import settings
from app.spec.data import Column, Schema
from app.spec.faults import Invalid, nearest
from app.spec.lookup import Missing
from app.tables import Dataset, Edge, Job

MOST_PREVIEWED = 1_000_000
_BLOCK = 1 << 20


@dataclass(frozen=True)
class DatasetEntry:
    """A data set that jobs may name, built in or uploaded. `sha256` is of the bytes that were sent; of a built-in, of its content."""

    id: str
    name: str
    builtin: bool
    format: str | None
    description: str | None
    bytes: int | None
    sha256: str
    created_at: datetime | None
    schema: Schema


def add(
    session: Session,
    raw: Path,
    *,
    filename: str | None = None,
    name: str | None = None,
    format: str | None = None,
    targets: Sequence[str] = (),
) -> tuple[DatasetEntry, bool]:
    """Reads an upload in a child process and keeps it. The same bytes, read for the same targets, are the same data set.

    Nothing is asked of `session` while the child reads, so a long upload holds no transaction open.

    Args:
        raw: the bytes as they came; the caller removes the file.
        filename, name: labels and nothing more; the data set is called `name`, else `filename`.
        format: "npz" or "csv"; None to look.
        targets: columns to learn, each `column`, `column:number` or `column:category`; the first is the default target.

    Returns:
        The data set, and whether it is new.

    Raises:
        Invalid: with every fault in the labels, the format and the file. Nothing is stored.
    """
    labels = [("filename", filename), ("name", name)]
    faults = [fault for field, label in labels if label is not None and (fault := fault_in_label(label, field))]
    sha256 = _hash(raw)
    with _scratch_file() as out:
        try:
            known_format = uploads.format_of(raw, format)
            existing = None if faults else _same(sha256, known_format, targets)
            if existing is not None:
                return existing, False
            limits = UploadLimits(decoded_bytes=2 * settings().max_upload_bytes)
            schema = uploads.inspect_upload(raw, known_format, out, targets, limits)
        except Invalid as invalid:
            raise Invalid([*faults, *invalid.faults]) from None
        if faults:
            raise Invalid(faults)
        stored = _kept(session, out)
    row = {
        "id": ids.new("ds"),
        "name": name or filename or f"upload-{sha256[:8]}",
        "format": known_format,
        "sha256": sha256,
        "targets": list(targets),
        "prepared_sha256": stored.sha256,
        "bytes": raw.stat().st_size,
        "schema": schema.model_dump(mode="json"),
    }
    made = session.scalars(
        insert(Dataset).values(row).on_conflict_do_nothing().returning(Dataset),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if made is not None:
        return _uploaded(made), True
    return _uploaded(session.scalars(_of_bytes(sha256, known_format, targets)).one()), False


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
    return _uploaded(row)


def schema(session: Session, ref: str) -> Schema:
    """The schema of a data set. Raises Missing."""
    return find(session, ref).schema


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
        return {
            "id": row.id,
            "schema": row.schema,
            "path": str(artifacts.blob(row.prepared_sha256)),
            "sha256": row.sha256,
        }
    dataset = _built_in(ref)
    return {"id": ref, "schema": dataset.schema.model_dump(mode="json"), "path": None, "sha256": dataset.sha256}


def page(session: Session, *, limit: int = 50, before: str | None = None) -> Generator[DatasetEntry]:
    """Uploads, the newest first, then the built-in ones; at most `limit`, from behind the data set with id `before`. A few at a time are in
    memory."""
    names = list(builtins.BUILTINS)
    if before in builtins.BUILTINS:
        yield from map(_built_in, names[names.index(before) + 1 :][:limit])
        return
    query = select(Dataset).order_by(Dataset.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Dataset.id < before)
    for row in stream(session, query):
        yield _uploaded(row)
        limit -= 1
    yield from map(_built_in, names[:limit])


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
    stored = row.prepared_sha256
    session.delete(row)
    session.flush()
    after_commit(session, lambda: artifacts.collect([stored]))


def preview(session: Session, ref: str, n: int = 10) -> list[dict[str, Any]]:
    """The first `n` rows: `input` as predict takes it, and each column in words: a class, a number, the labels that are set, null.

    Of large pictures fewer rows, as many as hold `MOST_PREVIEWED` numbers, and one at least. Raises NotFound.
    """
    dataset = get(session, ref)
    n = max(1, min(n, MOST_PREVIEWED // prod(dataset.schema.input.shape)))
    if dataset.builtin:
        table = builtins.load(ref)
    else:
        row = session.get_one(Dataset, ref)
        table = prepared.head(artifacts.blob(row.prepared_sha256), n)
    shape = table.schema.input
    show = inputs.of(shape.kind).preview
    rows = table.inputs[np.arange(min(n, len(table)))]
    return [
        {"input": show(row, shape)} | {name: _cell(table, name, number) for name in table.columns}
        for number, row in enumerate(rows)
    ]


@contextmanager
def _scratch_file() -> Iterator[Path]:
    """The place for a temporary file, beside the store; gone afterwards."""
    out = settings().store / "tmp" / f"{uuid.uuid4().hex}.npz"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield out
    finally:
        out.unlink(missing_ok=True)


def _kept(session: Session, out: Path) -> artifacts.Stored:
    """`out` in the store, to stay there until a row of this transaction names it."""
    stored = artifacts.keep_file(out)
    try:
        artifacts.hold(session, stored.sha256)
    except FileNotFoundError:  # its twin was deleted in between, bytes and all; from here on nothing is collected
        stored = artifacts.keep_file(out)
    return stored


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _same(sha256: str, format: str, targets: Sequence[str]) -> DatasetEntry | None:
    with transaction() as session:
        row = session.scalars(_of_bytes(sha256, format, targets)).one_or_none()
        return _uploaded(row) if row is not None else None


def _of_bytes(sha256: str, format: str, targets: Sequence[str]) -> Any:
    return select(Dataset).where(Dataset.sha256 == sha256, Dataset.format == format, Dataset.targets == list(targets))


def _built_in(name: str) -> DatasetEntry:
    table = builtins.load(name)
    size = int(table.inputs.nbytes + sum(values.nbytes for values in table.columns.values()))
    about = builtins.BUILTINS[name].description
    return DatasetEntry(name, name, True, None, about, size, builtins.sha256(name), None, table.schema)


def _uploaded(row: Dataset) -> DatasetEntry:
    schema = Schema.model_validate(row.schema)
    return DatasetEntry(row.id, row.name, False, row.format, None, row.bytes, row.sha256, row.created_at, schema)


def _missing(session: Session, ref: str) -> Missing:
    recent = select(Dataset.id).order_by(Dataset.id.desc()).limit(100)
    names = [*builtins.BUILTINS, *(session.scalars(recent) if ref.startswith("ds_") else ())]
    return Missing(ref, "there is no such data set", nearest(ref, names, "data sets"))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _cell(table: Table, name: str, row: int) -> Any:
    column: Column = table.schema.columns[name]
    value = table.columns[name][row]
    if column.type == "category":
        return (column.classes or [])[int(value)] if value >= 0 else None
    if np.isnan(value).all() or (column.type == "number" and np.isnan(value).any()):
        return None
    if column.type == "labels":
        return [label for label, there in zip(column.classes or [], value, strict=True) if there == 1]
    return value.tolist()
