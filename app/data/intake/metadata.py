"""A metadata file within an archive: a table whose column `file_name` says which file each of its rows describes."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import replace

import numpy as np
import pyarrow as pa

from app.data import columns, tabular
from app.data.intake.archive import Unreadable
from app.data.intake.folders import FILE_NAME, Layout
from app.data.upload_limits import UploadLimits
from app.spec.data import Column
from app.spec.faults import Fault, Invalid, nearest, pointer
from app.spec.intake import ColumnReading

FORMATS: dict[str, tabular.Format] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}


def described(layout: Layout, limits: UploadLimits) -> Layout:
    """The layout with the files that its metadata names, in the metadata's order; others are ignored, those that are not there broken.

    Raises:
        Invalid: the metadata cannot be read, or has no column `file_name`.
    """
    assert layout.metadata is not None
    name, member = layout.metadata
    place = pointer("file", "member", name)
    try:
        content = member.content()
    except Unreadable as error:
        raise Invalid([Fault(place, str(error), "make the archive again")]) from None
    frame = tabular.read_frame(io.BytesIO(content), FORMATS[name[name.rindex(".") :]], limits)
    if FILE_NAME not in frame.columns:
        hint = nearest(FILE_NAME, frame.names, "columns")
        raise Invalid([Fault(place, f"it has no column {FILE_NAME}, which says what file a row describes", hint)])
    files = {row[FILE_NAME]: file for row, file in zip(layout.labels, layout.members, strict=True)}
    there, kept, members, labels = set(files), list[int](), [], []
    for number, cell in enumerate(frame.columns[FILE_NAME].to_pylist()):
        file_name = unicodedata.normalize("NFC", str(cell or "").strip().removeprefix("./"))
        if file_name in files:
            kept.append(number)
            members.append(files.pop(file_name))
            labels.append({FILE_NAME: file_name})
        else:
            reason = (
                "two rows of the metadata name it"
                if file_name in there
                else "the metadata names it, the archive lacks it"
            )
            layout.broken.add(reason, f"row {number + 1}: {file_name}")
    for file_name in files:
        layout.ignored.add("the metadata does not name it", file_name)
    chosen = _taken(frame, np.array(kept, np.int64))
    return replace(layout, members=members, labels=labels, frame=chosen, missing=frame.rows - len(kept))


def read(
    layout: Layout, kept: np.ndarray, asked: list[str], limits: UploadLimits
) -> tuple[dict[str, np.ndarray], dict[str, Column], list[ColumnReading]]:
    """The columns of the rows that were kept. A column that was not asked for and cannot be learnt is left out, and said to be.

    Raises:
        Invalid: what was asked for is not there or cannot be learnt.
    """
    assert layout.frame is not None
    frame = _taken(layout.frame, kept)
    read = layout.beside.readings if layout.beside else []
    inputs = {reading.column: reading for reading in read if reading.read_as != "unused"}
    names = [name for name in frame.names if name != FILE_NAME and name not in inputs]
    wanted, faults = columns.parse_asked(asked, names, "targets", ("number", "category", "labels"))
    if faults:
        raise Invalid(faults)
    made = tabular.read_targets(frame, asked, limits) if asked else {}
    readings = [ColumnReading(column=FILE_NAME, read_as="file", why="it names the files"), *inputs.values()]
    for name in names:
        if name not in made:
            try:
                made |= tabular.read_targets(frame, [name], limits)
            except Invalid as invalid:
                readings.append(ColumnReading(column=name, read_as="left out", why=invalid.faults[0].message))
                continue
        readings.append(ColumnReading(column=name, read_as=made[name][1].type, why="a column of the metadata"))
    ordered = [column.column for column in wanted] + [name for name in names if name not in {w.column for w in wanted}]
    made = {name: made[name] for name in ordered if name in made}
    return (
        {name: values for name, (values, _) in made.items()},
        {name: about for name, (_, about) in made.items()},
        readings,
    )


def _taken(frame: tabular.Frame, rows: np.ndarray) -> tabular.Frame:
    chosen = pa.array(rows)
    return replace(frame, rows=len(rows), columns={name: cells.take(chosen) for name, cells in frame.columns.items()})
