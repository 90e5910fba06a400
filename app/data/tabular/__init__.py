"""Tables as users have them: CSV, TSV, JSON lines and Parquet, each also compressed by gzip.

`read` makes a data set of a file. `read_frame` gives its columns as they are, and `read_targets` makes targets of some of them: for
a table that describes other files.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from typing import IO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from app.data import columns
from app.data import inputs as input_kinds
from app.data.columns import TEXT, Asked, Values
from app.data.table import Table
from app.data.tabular import csv_text, features, gzipped, jsonl, parquet, parts, targets
from app.data.tabular.frame import Frame, Named
from app.data.upload_limits import UploadLimits
from app.spec.data import Column, Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import Intake, UploadOptions

__all__ = ["Format", "Frame", "read", "read_frame", "read_targets", "samples", "warm_up"]

Format = Literal["csv", "jsonl", "parquet"]

_READERS = {"csv": csv_text.read, "jsonl": jsonl.read, "parquet": parquet.read}


def read(file: IO[bytes], format: Format, options: UploadOptions, limits: UploadLimits) -> tuple[Table, Intake]:
    """The data set in a file, and what became of its columns.

    Raises:
        Invalid: with every fault of the first step that finds any: the file, its lines, the columns that were named, the values.
    """
    frame = read_frame(file, format, limits, lambda names: _asked(names, options))
    learnt, inputs = _asked(frame.names, options)
    made, remarks, faults = targets.of_frame(frame, learnt, limits)
    found = parts.of_frame(frame, learnt, remarks, inputs, options, limits)
    if faults or found.faults:
        raise Invalid([*faults, *found.faults])
    rows, shape = found.row_inputs()
    hashes = input_kinds.of(shape.kind).hashes(rows, shape)
    described: dict[str, Column] = {name: about for name, (_, about) in made.items()}
    schema = Schema(rows=len(rows), input=shape, columns=described, target=learnt[0].column)
    table = Table(rows, {name: values for name, (values, _) in made.items()}, hashes, schema)
    return table, Intake(used=len(rows), columns=found.readings, notes=found.notes)


def _asked(names: Sequence[str], options: UploadOptions) -> tuple[list[Asked], list[Asked]]:
    """The targets and the inputs among a file's columns. Raises Invalid with all that is wrong with them."""
    if len(names) < 2:
        message = f"{len(names)} columns were found, two or more are needed"
        raise Invalid([Fault("/file", message, "a table needs a feature column and a target column")])
    inputs, faults = columns.parse_asked(options.inputs, names, "inputs", (*features.TYPES, TEXT))
    learnt, more = targets.chosen(names, options.targets, [column.column for column in inputs])
    faults += more
    both = {column.column for column in learnt}.intersection(column.column for column in inputs)
    faults += [Fault("/inputs", f"{name} is a target too", "name it in one of the two") for name in sorted(both)]
    if faults:
        raise Invalid(faults)
    return learnt, inputs


def read_frame(file: IO[bytes], format: Format, limits: UploadLimits, named: Named | None = None) -> Frame:
    """The columns of a file. Raises Invalid with all that is wrong with it, as far as its values are not looked at.

    Args:
        named: given the names of the columns as soon as they are known, and may raise Invalid.
    """
    return _READERS[format](gzipped.opened(file, limits), limits, named or _any_names)


def _any_names(names: Sequence[str]) -> None:
    """Takes whatever columns there are."""


def read_targets(frame: Frame, asked: Sequence[str], limits: UploadLimits) -> dict[str, tuple[Values, Column]]:
    """{column: (its stored values, its description)} of the columns that are asked for, each `name` or `name:type`. Raises Invalid."""
    return targets.read(frame, asked, limits)


def warm_up(format: Format) -> Table:
    """Starts the one reading thread and loads all that reading loads at first use: later the process has the right to neither.

    Returns:
        A small table.
    """
    pa.set_io_thread_count(1)
    pa.set_cpu_count(1)
    samples_ = samples(format)
    for content in [*samples_, *map(gzip.compress, samples_)]:
        table, _ = read(io.BytesIO(content), format, UploadOptions(), UploadLimits())
    return table


def samples(format: Format) -> list[bytes]:
    """Small files of ours, with every way that cells can be read."""
    if format == "csv":
        semicolons = "a;when;ä;y\n1;2026-11-27;\xe4;0\n2,5;;b;1\n3;2026-11-28;b;1\n"
        commas = 'a,when,ä,y\n"1,234",27.11.2026,ä,0\nNA,28.11.2026 08:30,,1\n'
        return [semicolons.encode("cp1252"), commas.encode("utf-8-sig")]
    rows = [{"a": 1, "b": "ä", "when": "2026-11-27", "y": ["u"]}, {"a": 2.5, "b": "b", "when": None, "y": ["v", "u"]}]
    if format == "jsonl":
        return ["\n".join(map(json.dumps, rows)).encode()]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return [file.getvalue()]
