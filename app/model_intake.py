"""Takes models in that users send as files: a child reads the bytes, the inference program writes our own file, a row names it.

Not a byte of what was sent is kept.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app import artifacts, data, datasets, inference, logs, models
from app.data import tokens
from app.data.names import fault_in_label
from app.db import transaction
from app.model_files import adopt, named, upload
from app.model_files.config import walk
from app.pretrained.hugging_face import conversion
from app.settings import settings
from app.spec import architectures, tasks
from app.spec.adopted import Adopted, Order
from app.spec.architectures.keras_graph import Spec
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid, validate
from app.spec.imports import ImportOptions, Origin
from app.spec.lookup import Missing
from app.spec.named_weights import WeightsOptions, WeightsOrder
from app.tables import Model

MOST_PROBED = 256
"""Labelled rows on which readings of a file are tried."""

log = logs.get(__name__)


@dataclass(frozen=True)
class Ordered:
    """What a file became, before it is written. `about`: fields of its `Origin`."""

    candidates: list[Adopted]
    arrays: Path
    about: dict[str, Any]
    weights: WeightsOrder | None = None
    tokenizer: Path | None = None


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
    schema, table = _checked(filename, name, options)

    def ordered(work: Path) -> Ordered:
        arrays = work / "arrays.npz"
        read = _read(raw, arrays, options)
        graph, tokenizer = read.judged()
        path = None
        if tokenizer is not None:
            path = work / tokens.FILE
            path.write_text(tokenizer, encoding="utf-8")
        reading = adopt.adopt(graph, read.outputs, read.said.under(options), schema)
        more = {"notes": [*read.notes, *reading.notes], "licence": read.said.licence, "source": read.said.source}
        return Ordered(reading.candidates, arrays, more, tokenizer=path)

    return _kept(raw, filename, name, options, table, ordered)


def add_weights(raw: Path, *, filename: str | None, name: str | None, options: WeightsOptions) -> tuple[Model, bool]:
    """As `add`, of a file that has the numbers of a named architecture alone. Pointers of faults in it are /weights."""
    schema, table = _checked(filename, name, options)
    network = named.described(options, schema)

    def ordered(work: Path) -> Ordered:
        arrays = work / "arrays.npz"
        found = upload.read_weights(raw, arrays)
        order = WeightsOrder(arrays=found, partial=options.partial, leftover=not network.heads, seed=options.seed)
        graph = _whole(network)
        notes = [*network.notes, *([] if graph is None else [named.AS_GRAPH])]
        return Ordered(network.candidates(graph), arrays, {"notes": notes}, order)

    try:
        return _kept(raw, filename, name, options, table, ordered)
    except Invalid as invalid:
        at = re.compile("^/file(?=/|$)")
        raise Invalid(replace(fault, pointer=at.sub("/weights", fault.pointer)) for fault in invalid.faults) from None


def _kept(
    raw: Path,
    filename: str | None,
    name: str | None,
    options: ImportOptions,
    table: data.Table | None,
    ordered: Callable[[Path], Ordered],
) -> tuple[Model, bool]:
    """Has the model written and records it. `ordered`: reads the file, in a folder for its arrays."""
    called = name or _without_ending(filename) or "model"
    with raw.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    asked = options.model_dump(mode="json", exclude_defaults=True)
    if isinstance(options, WeightsOptions):
        asked["architecture"] = architectures.as_data(options.architecture)
    with transaction() as session:
        if (existing := models.of_file(session, sha256, called, asked)) is not None:
            return existing, False
    folder = settings().store / "tmp"
    with tempfile.TemporaryDirectory(prefix="model-", dir=folder) as work:
        out, wanted = Path(work) / "model.keras", ordered(Path(work))
        labelled, names = (None, []) if table is None else _labelled(table, wanted.candidates[0], Path(work))
        whose = Origin(file=filename or called, sha256=sha256, bytes=raw.stat().st_size, options=asked)
        manifest = inference.write(
            Order(
                candidates=wanted.candidates,
                arrays=str(wanted.arrays),
                out=str(out),
                origin=whose.model_copy(update=wanted.about),
                tokenizer=None if wanted.tokenizer is None else str(wanted.tokenizer),
                labelled=None if labelled is None else str(labelled),
                names=names,
                weights=wanted.weights,
            )
        )
        stored = artifacts.keep_file(out)
    with transaction() as session:
        model, new = models.add(session, called, stored, manifest)
    log.info("model_imported", model=model.id, parameters=manifest.parameters, new=new)
    return model, new


def _without_ending(filename: str | None) -> str | None:
    return None if filename is None else Path(filename.removesuffix(".weights.h5")).stem or None


def _whole(network: named.Named) -> Spec | None:
    """A catalog's network layer by layer, where it is to see other pixels than trunks here do."""
    if not network.has_other_pixels:
        return None
    architecture = network.architecture
    try:
        walked = walk(inference.config(architectures.as_data(architecture), network.seen))
    except ValueError as error:
        raise Invalid([Fault("/architecture", str(error), "name rows that it takes: -F shape=…")]) from None
    except Invalid:
        message = f"{architecture.label} has layers that cannot stand behind a Rescaling in a keras-graph"
        hint = "-F scale=0..1, if the network was trained on that"
        raise Invalid([Fault("/scale", message, hint, "not_available")]) from None
    ((_, features),) = walked.outputs
    return validate(Spec, {**walked.graph, "features": features["tensor"]})


def _read(raw: Path, arrays: Path, options: ImportOptions) -> upload.Model:
    """What the file holds. Raises Invalid."""
    sides = {"*2": list(options.size or ()), "*1": [] if options.length is None else [options.length]}
    try:
        return upload.read_model(raw, arrays, sides={name: given for name, given in sides.items() if given})
    except upload.OfFolder:
        network = arrays.with_name("network.zip")
        conversion.convert(raw, network, size=options.size)
        return upload.read_model(network, arrays)
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
