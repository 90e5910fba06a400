"""A column of a frame as the input: texts, one a row. The other columns are targets or unused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from app.data.columns import Asked
from app.data.inputs import text
from app.data.tabular.frame import Frame
from app.data.upload_limits import UploadLimits
from app.spec.data import InputSchema
from app.spec.faults import Fault, Invalid, pointer
from app.spec.intake import ColumnReading, UploadOptions


def of_frame(
    frame: Frame,
    name: str,
    targets: Sequence[Asked],
    remarks: Mapping[str, Sequence[str]],
    options: UploadOptions,
    limits: UploadLimits,
) -> tuple[np.ndarray, InputSchema, list[ColumnReading], list[str]]:
    """The rows of the column `name`, what they are, what became of all columns, and what is to be noted.

    Raises:
        Invalid: the column holds no texts, or they take too much room.
    """
    place = pointer("file", "column", name)
    cells = frame.columns[name]
    if pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type):
        raise Invalid([Fault(place, "asked for as texts, but it holds something else", "give one text a row")])
    words = [word or "" for word in cells.cast(pa.string()).to_pylist()]
    notes = [*frame.notes]
    empty = sum(not word.strip() for word in words)
    if empty == len(words):
        raise Invalid([Fault(place, "no row has a text", "name a column that has")])
    if empty:
        notes.append(f"{empty} of {len(words)} rows have no text in {name}: theirs is empty.")
    rows, schema = text.stored(words, options.length, notes)
    if rows.nbytes > limits.decoded_bytes:
        message = f"its texts take {rows.nbytes} bytes, at most {limits.decoded_bytes} are allowed"
        raise Invalid([Fault(place, message, "give a smaller length, or fewer rows")])
    learnt = {target.column: target.wanted for target in targets}
    readings = []
    for column in frame.names:
        if column == name:
            readings.append(
                ColumnReading(column=column, read_as="text", why=f"{schema.shape[0]} bytes of each are the input")
            )
        elif column in learnt:
            how = learnt[column]
            why = "; ".join([f"read as {how}" if how else "to be learnt", *remarks.get(column, ())])
            readings.append(ColumnReading(column=column, read_as="target", why=why))
        else:
            readings.append(ColumnReading(column=column, read_as="unused", why=f"{name} is the input"))
    return rows, schema, readings, notes
