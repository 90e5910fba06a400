"""What a metadata file has beside each file as further inputs: a row then is the file's own numbers, and those of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.data import columns, inputs
from app.data.columns import TEXT
from app.data.inputs import multimodal
from app.data.intake.folders import FILE_NAME, Layout
from app.data.tabular import features, parts
from app.data.tabular.parts import Parts
from app.data.upload_limits import UploadLimits
from app.spec.data import InputSchema
from app.spec.faults import Fault, Invalid
from app.spec.intake import UploadOptions


def found(layout: Layout, options: UploadOptions, limits: UploadLimits) -> Parts | None:
    """The columns of the metadata that are named as inputs, a row for each of the layout's files; None where none are.

    Raises:
        Invalid: with all that is wrong with them.
    """
    named = [name for name in options.inputs if name != FILE_NAME]  # which goes in by itself
    if layout.frame is None or not named:
        return None
    frame = layout.frame.without(FILE_NAME)
    asked, faults = columns.parse_asked(named, frame.names, "inputs", (*features.TYPES, TEXT))
    learnt = columns.parse_targets(options.targets, frame.names)[0]
    both = sorted({column.column for column in learnt}.intersection(column.column for column in asked))
    faults += [Fault("/inputs", f"{name} is a target too", "name it in one of the two") for name in both]
    if faults:
        raise Invalid(faults)
    made = parts.of_frame(frame, [], {}, asked, options, limits, beside_file=True)
    if made.faults:
        raise Invalid(made.faults)
    return made


@dataclass(frozen=True)
class RowForm:
    """How rows are stored: what they are, and the shape and type of one. `alone`: what the files' own numbers are."""

    input: InputSchema
    alone: InputSchema
    shape: list[int]
    dtype: np.dtype[Any]
    beside: Parts | None = None

    def stored(self, rows: np.ndarray, numbers: list[int]) -> np.ndarray:
        """Rows of files, (n, …), as they are kept, with what stands beside those files, by their numbers in the layout."""
        if self.beside is None:
            return rows
        more = {name: values[numbers] for name, values in self.beside.rows.items()}
        return multimodal.packed_parts({multimodal.FILE: rows, **more}, self.input)

    def hashes(self, stored: np.ndarray) -> np.ndarray:
        """Of rows as `stored` gives them, (n, 16)."""
        rows = inputs.unpacked(stored, self.input)
        return inputs.of(self.input.kind).hashes(rows[np.arange(len(rows))], self.input)


def form(layout: Layout, alone: InputSchema, dtype: np.dtype[Any]) -> RowForm:
    """The form of rows whose files have `alone` as their own numbers, of `dtype`."""
    if layout.beside is None:
        return RowForm(alone, alone, alone.shape, dtype)
    whole = multimodal.joined({multimodal.FILE: alone, **layout.beside.shapes})
    sizes = (int(np.prod(part.shape)) * inputs.stored_type(part).itemsize for part in whole.parts.values())
    return RowForm(whole, alone, [sum(sizes)], np.dtype(np.uint8), layout.beside)
