"""Takes models in that users send as files: a child reads the bytes, the inference program writes our own file, a row names it.

Not a byte of what was sent is kept.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from app import artifacts, data, datasets, inference, logs, models
from app.data import tokens
from app.data.names import fault_in_label
from app.db import transaction
from app.model_files import adopt, upload
from app.settings import settings
from app.spec import tasks
from app.spec.adopted import Adopted, Order
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid
from app.spec.imports import ImportOptions, Origin
from app.spec.lookup import Missing
from app.tables import Model

MOST_PROBED = 256
"""Labelled rows on which readings of a file are tried."""

log = logs.get(__name__)


def add(raw: Path, *, filename: str | None, name: str | None, options: ImportOptions) -> tuple[Model, bool]:
    """Keeps the model in the file `raw`. The same bytes with the same name and options are the same model.

    Args:
        filename, name: labels; the model is called `name`, else as the file without its ending.

    Returns:
        The model, and whether it is new.

    Raises:
        Invalid: with every fault in the labels, the options and the file. Nothing is stored.
        Problem: the inference program does not answer, or fails.
    """
    called = name or (Path(filename).stem if filename else None) or "model"
    schema, table = _checked(filename, name, options)
    with raw.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    asked = options.model_dump(mode="json", exclude_defaults=True)
    with transaction() as session:
        if (existing := models.of_file(session, sha256, called, asked)) is not None:
            return existing, False
    folder = settings().store / "tmp"
    with tempfile.TemporaryDirectory(prefix="model-", dir=folder) as work:
        arrays, out = Path(work) / "arrays.npz", Path(work) / "model.keras"
        read = _read(raw, arrays, options)
        options = read.said.under(options)
        graph, tokenizer = read.judged()
        if tokenizer is not None:
            (Path(work) / tokens.FILE).write_text(tokenizer, encoding="utf-8")
        reading = adopt.adopt(graph, read.outputs, options, schema)
        labelled, names = (None, []) if table is None else _labelled(table, reading.candidates[0], Path(work))
        notes, size = [*read.notes, *reading.notes], raw.stat().st_size
        whose = Origin(
            file=filename or called, sha256=sha256, bytes=size, licence=read.said.licence, source=read.said.source
        )
        origin = whose.model_copy(update={"options": asked, "notes": notes})
        manifest = inference.write(
            Order(
                candidates=reading.candidates,
                arrays=str(arrays),
                out=str(out),
                origin=origin,
                tokenizer=None if tokenizer is None else str(Path(work) / tokens.FILE),
                labelled=None if labelled is None else str(labelled),
                names=names,
            )
        )
        stored = artifacts.keep_file(out)
    with transaction() as session:
        model, new = models.add(session, called, stored, manifest)
    log.info("model_imported", model=model.id, parameters=manifest.parameters, new=new)
    return model, new


def _read(raw: Path, arrays: Path, options: ImportOptions) -> upload.Model:
    """What the file holds. Raises Invalid."""
    sides = {"*2": list(options.size or ()), "*1": [] if options.length is None else [options.length]}
    try:
        return upload.read_model(raw, arrays, sides={name: given for name, given in sides.items() if given})
    except Invalid as invalid:
        hint = "-F size=HEIGHTxWIDTH says two open sides, -F length=NUMBER one"
        raise Invalid(
            replace(fault, pointer="/size", hint=hint) if fault.pointer.startswith("/inputs") else fault
            for fault in invalid.faults
        ) from None


def _checked(filename: str | None, name: str | None, options: ImportOptions) -> tuple[Schema | None, data.Table | None]:
    """The data set that the options name. Raises Invalid: it, or one of the labels, is faulty."""
    faults = [
        fault
        for field, label in (("filename", filename), ("name", name))
        if label is not None and (fault := fault_in_label(label, field))
    ]
    try:
        found = _dataset(options.dataset)
    except Invalid as invalid:
        raise Invalid([*faults, *invalid.faults]) from None
    if faults:
        raise Invalid(faults)
    return found


def _dataset(ref: str | None) -> tuple[Schema | None, data.Table | None]:
    """The data set that the options name. Raises Invalid."""
    if ref is None:
        return None, None
    try:
        with transaction() as session:
            table = data.load(ref, datasets.entry(session, ref))
    except Missing as missing:
        raise Invalid([Fault("/dataset", missing.message, missing.hint, "unknown_name")]) from None
    return table.schema, table


def _labelled(table: data.Table, adopted: Adopted, folder: Path) -> tuple[Path | None, list[str]]:
    """Some labelled rows of the data set's target in a file, and their classes; none where the network has no such head."""
    target = None if table.schema.target is None else table.schema.columns[table.schema.target]
    if target is None or target.type != "category" or len(adopted.heads) != 1:
        return None, []
    (head,) = adopted.heads
    if head.manifest.classes is None or not tasks.of(head.manifest.type).accepts(target):
        return None, []
    labels: np.ndarray = np.asarray(table.columns[target.name], np.int64)
    known = np.flatnonzero(labels >= 0)
    some = np.sort(np.random.default_rng(0).permutation(known)[:MOST_PROBED])
    path = folder / "labelled.npz"
    np.savez(path, rows=table.inputs[some])
    classes = target.classes or []
    return path, [classes[label] for label in labels[some]]
