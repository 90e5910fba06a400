"""The columns of a frame that go in: each column of texts is a part of its own, all others are the columns of one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.data.columns import TEXT, Asked
from app.data.inputs import multimodal
from app.data.tabular import features, texts
from app.data.tabular.frame import Frame
from app.data.upload_limits import UploadLimits
from app.spec.data import InputSchema
from app.spec.faults import Fault, Invalid
from app.spec.intake import ColumnReading, UploadOptions

MOST_TEXTS = 8
"""Columns of texts in a row: each has a network of its own."""


@dataclass
class Parts:
    """Of each part the rows, and what they are; what became of all columns; what is to be noted; all that is wrong."""

    rows: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, InputSchema] = field(default_factory=dict)
    readings: list[ColumnReading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def row_inputs(self) -> tuple[np.ndarray, InputSchema]:
        """The rows of the one part there is; of several, all side by side, (n, numbers) float32."""
        if len(self.rows) == 1:
            return next(iter(self.rows.values())), next(iter(self.shapes.values()))
        return multimodal.side_by_side(self.rows), multimodal.joined(self.shapes)


def of_frame(
    frame: Frame,
    targets: Sequence[Asked],
    remarks: Mapping[str, Sequence[str]],
    inputs: Sequence[Asked],
    options: UploadOptions,
    limits: UploadLimits,
    *,
    beside_file: bool = False,
) -> Parts:
    """The columns in `inputs`, and no others; where there are none, all but the targets, as one table; or, where nothing in them is of use
    but one column of texts, that. With all faults.

    Args:
        remarks: on how the targets were read.
        beside_file: whether each row has a file as well.

    Raises:
        Invalid: a column that is asked for as texts has none, or too long ones.
    """
    made = Parts(notes=[*frame.notes])
    sentences = [column.column for column in inputs if column.wanted == TEXT]
    others = [column for column in inputs if column.wanted != TEXT]
    found = None
    if others or not sentences:
        found = features.of_frame(frame, targets, remarks, others, limits)
        sentences = sentences or found.text_alone()
        if not inputs and sentences:
            made.notes.append(f"{sentences[0]} holds texts and there is no other feature: the texts are the input.")
            found = None
    if len(sentences) > MOST_TEXTS:
        message = f"{len(sentences)} columns of texts, at most {MOST_TEXTS} are inputs side by side"
        raise Invalid([Fault("/inputs", message, "put short ones together in one column", "too_many")])
    for name in sentences:
        made.rows[name], made.shapes[name], notes = texts.of_frame(frame, name, options.length, limits)
        made.notes += notes
    if found is not None:
        made.faults += found.faults
        made.notes += found.notes
        if not found.faults:
            made.rows[multimodal.TABLE] = np.stack(found.vectors, axis=1)
            shape = [len(found.features)]
            made.shapes[multimodal.TABLE] = InputSchema(kind="table", shape=shape, features=found.features)
    if beside_file or len(sentences) + (found is not None) > 1:
        columns = [feature.column for feature in found.features] if found is not None else []
        made.faults += multimodal.faults_in_names(sentences, columns)
    stored = 4 * frame.rows * sum(int(np.prod(shape.shape)) for shape in made.shapes.values())
    if len(made.shapes) > 1 and stored > limits.decoded_bytes:
        message = f"side by side the inputs take {stored} bytes, at most {limits.decoded_bytes} are allowed"
        made.faults.append(Fault("/inputs", message, "give a smaller length, or fewer rows or columns", "too_large"))
    made.readings = _readings(frame, targets, remarks, made, sentences, found.readings if found else [])
    return made


def _readings(
    frame: Frame,
    targets: Sequence[Asked],
    remarks: Mapping[str, Sequence[str]],
    made: Parts,
    sentences: Sequence[str],
    of_features: Sequence[ColumnReading],
) -> list[ColumnReading]:
    there = {reading.column: reading for reading in of_features}
    learnt = {target.column: target.wanted for target in targets}
    readings = []
    for column in frame.names:
        if column in sentences:
            why = f"{made.shapes[column].shape[0]} bytes of each are {'the' if len(made.shapes) == 1 else 'an'} input"
            readings.append(ColumnReading(column=column, read_as="text", why=why))
        elif column in there:
            readings.append(there[column])
        elif column in learnt:
            how = learnt[column]
            why = "; ".join([f"read as {how}" if how else "to be learnt", *remarks.get(column, ())])
            readings.append(ColumnReading(column=column, read_as="target", why=why))
        else:
            why = f"{' and '.join(made.shapes)} {'is the input' if len(made.shapes) == 1 else 'are the inputs'}"
            readings.append(ColumnReading(column=column, read_as="unused", why=why))
    return readings
