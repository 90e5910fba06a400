"""Files of texts whose tokens have tags become a table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice
from typing import IO, Any, Literal

import numpy as np

from app.data.columns import Values
from app.data.inputs import text
from app.data.names import shown
from app.data.table import Table, describe
from app.data.tabular import gzipped, jsonl, read_targets
from app.data.tabular.frame import Frame
from app.data.tagged import conll, schemes, token_lines, token_rows
from app.data.tagged.schemes import Tagged
from app.data.upload_limits import UploadLimits
from app.spec.data import Column, Schema
from app.spec.faults import MOST, Fault, Invalid, nearest, pointer
from app.spec.intake import ColumnReading, Intake, UploadOptions

__all__ = ["CONLL", "Format", "holds_tags", "read", "samples"]

Format = Literal["conll", "jsonl"]
CONLL: Format = "conll"

TAGS, GROUP = "tags", "group"


def holds_tags(file: IO[bytes], options: UploadOptions, limits: UploadLimits) -> bool:
    """Whether the first object of JSON lines has tokens and tags, or a text and spans; and nobody asked for anything else."""
    if options.inputs or any(target.startswith(f"{TAGS}:") for target in options.targets):
        return False
    _, objects = jsonl.objects(gzipped.opened(file, limits), [])
    first = next((row for _, row in islice(objects, 1)), None)
    return first is not None and token_lines.pair_of(first) is not None


def read(file: IO[bytes], format: Format, options: UploadOptions, limits: UploadLimits) -> tuple[Table, Intake]:
    """The data set in a file, and what became of its lines.

    Raises:
        Invalid: with every fault of the first step that finds any: the lines, the tags, the columns that were named.
    """
    notes, opened = list[str](), gzipped.opened(file, limits)
    others = [name for name in options.targets if name != TAGS]
    if format == CONLL:
        unit = "line"
        sentences, ignored = conll.read(opened, limits, notes)
        frame = Frame(len(sentences), {})
        groups = _documents(sentences)
    else:
        unit, sentences, frame, groups = _of_objects(opened, others, limits, notes)
        ignored = []
    if not sentences:
        raise Invalid([Fault("/file", "there is no sentence", "give a token and its tag on each line")])
    tags, faults = schemes.to_bio(sentences, unit, notes)
    made, more = _others(frame, options.targets, limits)
    if faults or more:
        raise Invalid([*faults, *more])
    rows, shape, codes, column = token_rows.of(sentences, tags, options.length, limits, notes)
    stored: dict[str, Values] = {TAGS: codes, **{name: values for name, (values, _) in made.items()}}
    described = {TAGS: column, **{name: about for name, (_, about) in made.items()}}
    if groups is not None and GROUP not in described:
        stored[GROUP] = groups
        described[GROUP] = describe(GROUP, groups)
    target = options.targets[0].partition(":")[0] if options.targets else TAGS
    schema = Schema(rows=len(rows), input=shape, columns=described, target=target)
    intake = Intake(used=len(rows), ignored=ignored, columns=_readings(described, column), notes=notes)
    return Table(rows, stored, text.hashes(rows, shape), schema), intake


def _of_objects(
    file: IO[bytes], others: Sequence[str], limits: UploadLimits, notes: list[str]
) -> tuple[str, list[Tagged], Frame, np.ndarray | None]:
    """What line numbers count; the sentences; the other columns that are asked for; each row's document."""
    faults, torn = list[Fault](), token_lines.Torn()
    unit, objects = jsonl.objects(file, faults)
    columns = jsonl.Columns(limits, unit, faults)
    sentences, documents, pair = list[Tagged](), list[object](), None
    block = list[tuple[int, dict[str, Any]]]()
    names, keys = {name.partition(":")[0] for name in others}, dict[str, None]()
    for number, row in objects:
        if row is not None:
            pair = pair or token_lines.pair_of(row) or token_lines.PAIRS[0]
            sentence = token_lines.read(row, pair, number, unit, torn)
            if isinstance(sentence, Tagged):
                sentences.append(sentence)
            else:
                faults += sentence
            documents.append(row.get(token_lines.DOCUMENT))
            keys |= dict.fromkeys(row)
            block.append((number, {name: row[name] for name in names if name in row}))
            if len(block) == jsonl.BLOCK:
                columns.add(block)
                block = []
        if len(faults) >= MOST or len(sentences) > limits.rows:
            break
    columns.add(block)
    if faults:
        raise Invalid(faults)
    if len(sentences) > limits.rows:
        raise Invalid([Fault("/file", f"more than {limits.rows} rows", "send fewer of them")])
    torn.note(notes)
    unused = [key for key in keys if key not in {*(pair or ()), token_lines.DOCUMENT, *names}]
    if unused:
        some = ", ".join(map(shown, unused[:5])) + (", …" if len(unused) > 5 else "")
        notes.append(f"keys that are not used: {some}; -F targets=tags,NAME makes a target of one.")
    return unit, sentences, Frame(columns.rows, columns.columns()), _numbers(documents)


def _others(
    frame: Frame, asked: Sequence[str], limits: UploadLimits
) -> tuple[dict[str, tuple[Values, Column]], list[Fault]]:
    """The targets besides tags, and what is wrong with them. `asked`: all targets, as they were asked for."""
    known, others = [TAGS, *frame.columns], [name for name in asked if name != TAGS]
    unknown = [
        Fault(pointer("targets", number), "the file has no such column", nearest(name, known), "unknown_name")
        for number, name in enumerate(asked)
        if name not in known and name.partition(":")[0] not in frame.columns
    ]
    if unknown:
        return {}, unknown
    try:
        return (read_targets(frame, others, limits), []) if others else ({}, [])
    except Invalid as invalid:
        return {}, invalid.faults


def _documents(sentences: Sequence[Tagged]) -> np.ndarray | None:
    """The number of each sentence's document; None where the file has none."""
    if all(sentence.document is None for sentence in sentences):
        return None
    return np.array([np.nan if one.document is None else one.document for one in sentences], np.float32)


def _numbers(documents: Sequence[object]) -> np.ndarray | None:
    """The same of words or whole numbers, numbered as they come."""
    known: dict[object, int] = {}
    codes = [
        known.setdefault(one, len(known)) if isinstance(one, str | int) and not isinstance(one, bool) else np.nan
        for one in documents
    ]
    return np.array(codes, np.float32) if known else None


def _readings(described: dict[str, Column], tags: Column) -> list[ColumnReading]:
    count = len(tags.classes or ())
    why = f"{count} tags, of {sum(tags.counts or ()):,} tokens in {tags.shape[0]} bytes of each text"
    readings = [ColumnReading(column=TAGS, read_as="target", why=why)]
    for name in described:
        if name == GROUP:
            readings.append(ColumnReading(column=name, read_as="number", why="the document of each row, to split by"))
        elif name != TAGS:
            readings.append(ColumnReading(column=name, read_as="target", why="to be learnt"))
    return readings


def samples() -> dict[Format, bytes]:
    """Small files of ours, with every way that they can be read."""
    rows = b'{"tokens": ["in", "Bonn"], "tags": ["O", "S-place"], "mood": "good", "document": "a"}\n'
    return {
        "conll": b"-DOCSTART-\tO\n\nin\tO\nBonn\tB-place\n",
        "jsonl": rows + rows.replace(b"good", b"bad"),
    }


def warm_up() -> None:
    """Loads all that reading loads at first use."""
    for kind, content in samples().items():
        asked = [TAGS, "mood"] if kind == "jsonl" else []
        read(io.BytesIO(content), kind, UploadOptions(targets=asked), UploadLimits())
