"""A column of a frame as an input: texts, one a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from app.data.inputs import text
from app.data.tabular.frame import Frame
from app.data.upload_limits import UploadLimits
from app.spec.data import InputSchema
from app.spec.faults import Fault, Invalid, pointer


def of_frame(
    frame: Frame, name: str, length: int | None, limits: UploadLimits
) -> tuple[np.ndarray, InputSchema, list[str]]:
    """The rows of the column `name`, what they are, and what is to be noted. `length`: as `text.stored` takes it.

    Raises:
        Invalid: the column holds no texts, or they take too much room.
    """
    place = pointer("file", "column", name)
    cells = frame.columns[name]
    if pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type):
        raise Invalid([Fault(place, "asked for as texts, but it holds something else", "give one text a row")])
    words = [word or "" for word in cells.cast(pa.string()).to_pylist()]
    notes = list[str]()
    empty = sum(not word.strip() for word in words)
    if empty == len(words):
        raise Invalid([Fault(place, "no row has a text", "name a column that has")])
    if empty:
        notes.append(f"{empty} of {len(words)} rows have no text in {name}: theirs is empty.")
    rows, schema = text.stored(words, length, notes)
    if rows.nbytes > limits.decoded_bytes:
        message = f"its texts take {rows.nbytes} bytes, at most {limits.decoded_bytes} are allowed"
        raise Invalid([Fault(place, message, "give a smaller length, or fewer rows")])
    return rows, schema, notes
