"""Columns of a frame become targets: classes, numbers or labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.data import columns
from app.data.columns import Asked, Values
from app.data.tabular import cells as reading
from app.data.tabular import date_text
from app.data.tabular.cells import Cells
from app.data.tabular.frame import Frame
from app.data.upload_limits import UploadLimits
from app.spec.data import Column
from app.spec.faults import Fault, Invalid, pointer

NAMES = ("target", "label", "class", "y")
"""A column of such a name is the target where none is asked for."""

DATES: tuple[columns.Wanted, ...] = ("date", "date-dmy", "date-mdy")
TYPES: tuple[columns.Wanted, ...] = ("number", "category", "labels", *DATES)

MARK = "|"
"""Between the labels of a cell of text."""


def chosen(names: Sequence[str], asked: Sequence[str], inputs: Sequence[str]) -> tuple[list[Asked], list[Fault]]:
    """The targets as asked for; else the column that is named like one; else the last one. None of them is among `inputs`."""
    targets, faults = columns.parse_asked(asked, names, "targets", TYPES)
    if targets or faults:
        return targets, faults
    free = [name for name in names if name not in set(inputs)]
    if not free:
        message = "every column is an input, none is left to be a target"
        return [], [Fault("/targets", message, "name a target, and leave it out of `inputs`")]
    return [Asked(next((name for name in NAMES if name in free), free[-1]))], []


def of_frame(
    frame: Frame, targets: Sequence[Asked], limits: UploadLimits
) -> tuple[dict[str, tuple[Values, Column]], dict[str, tuple[str, ...]], list[Fault]]:
    """{name: (stored values, its description)} of the targets that are sound; how they were read; and all that is wrong with the others."""
    made: dict[str, tuple[Values, Column]] = {}
    remarks: dict[str, tuple[str, ...]] = {}
    faults: list[Fault] = []
    for target in targets:
        cells = reading.of(frame, target.column, target.wanted == "number")
        remarks[target.column] = cells.remarks
        column = _target(cells, target, limits)
        if isinstance(column, Fault):
            faults.append(column)
        else:
            made[target.column] = column
    return made, remarks, faults


def read(frame: Frame, asked: Sequence[str], limits: UploadLimits) -> dict[str, tuple[Values, Column]]:
    """Columns of a frame as targets, each asked for as in an upload's form. Raises Invalid with all that is wrong."""
    targets, faults = columns.parse_asked(asked, frame.names, "targets", TYPES)
    made, _, more = of_frame(frame, targets, limits)
    if faults or more:
        raise Invalid([*faults, *more])
    return made


def _target(cells: Cells, target: Asked, limits: UploadLimits) -> tuple[Values, Column] | Fault:
    place = cells.place
    if cells.labels is not None:
        if target.wanted not in (None, "labels"):
            return Fault(place, f"asked for as a {target.wanted}, but it holds lists", "ask for it as labels")
        return _labels(cells.name, cells.labels, cells.missing, limits)
    if target.wanted == "labels":
        return _written_labels(cells, limits)
    if cells.fault:
        return cells.fault
    if target.wanted in DATES:
        return _days(cells, target)
    if cells.dates is not None:
        hint = f"ask for its days since 1970 with {cells.name}:date, to split by them, or give numbers or words"
        return Fault(place, "dates are no target", hint)
    if cells.numbers is None:
        if target.wanted == "number":
            return Fault(place, "asked for as numbers, but it holds words", "write numbers, or leave cells empty")
        return columns.of_distinct(cells.name, cells.codes, cells.words(), place, limits)
    present = ~cells.missing
    distinct, inverse = np.unique(cells.numbers[present], return_inverse=True)
    few = len(distinct) <= columns.FEW_WHOLE_NUMBERS and bool((distinct == np.floor(distinct)).all())
    if target.wanted == "category" or (target.wanted is None and few):
        codes = np.full(len(present), -1)
        codes[present] = inverse
        names = columns.whole_number_names(distinct[: limits.classes + 1])
        return columns.of_distinct(cells.name, codes, names, place, limits)
    whole = columns.fault_in_whole_numbers(cells.numbers, place, cells.written)  # before they become floats
    return whole or columns.of_numbers(cells.name, cells.floats(), place, cells.written)


def _days(cells: Cells, target: Asked) -> tuple[Values, Column] | Fault:
    """Dates as days since 1970-01-01, times of day as parts of one."""
    values = cells.dates
    if values is None:
        if cells.numbers is not None and not len(cells.codes):
            return Fault(cells.place, "asked for as dates, but it holds numbers", date_text.HINT)
        told = date_text.read(cells.distinct, cells.place, target.wanted)
        if isinstance(told, Fault):
            return told
        values = np.append(told[0], np.datetime64("NaT", "s"))[cells.codes]
    fault = date_text.fault_in_range(values, cells.place)
    seconds = values.astype("datetime64[s]").astype(np.int64)
    days = np.where(np.isnat(values), np.nan, seconds / 86_400).astype(np.float32)
    return fault or columns.of_numbers(cells.name, days, cells.place, cells.written)


def _written_labels(cells: Cells, limits: UploadLimits) -> tuple[Values, Column] | Fault:
    """Labels of texts such as `red|round`; `|` alone is a row without any."""
    if cells.numbers is not None and not len(cells.codes):
        return Fault(
            cells.place, "asked for as labels, but it holds numbers", "write labels as a|b, or as lists of texts"
        )
    parts = pc.split_pattern(cells.distinct, MARK)
    labels = parts.take(pa.array(cells.codes, mask=cells.codes < 0))
    return _labels(cells.name, labels, cells.missing, limits)


def _labels(name: str, lists: Any, missing: Values, limits: UploadLimits) -> tuple[Values, Column] | Fault:
    """A row of 0 and 1 for each label of Arrow's lists of texts."""
    place = pointer("file", "column", name)
    owners = pc.list_parent_indices(lists).to_numpy()
    encoded = pc.utf8_trim_whitespace(pc.list_flatten(lists).cast("string")).dictionary_encode()
    names = encoded.dictionary.to_pylist() if len(encoded.dictionary) <= 2 * limits.classes else []
    if len(encoded.dictionary) > 2 * limits.classes:
        return Fault(place, f"more than {limits.classes} different labels", "leave the rarest labels out")
    classes = sorted(label for label in names if label)
    if len(missing) * len(classes) * 4 > limits.decoded_bytes:
        return Fault(place, f"its labels take more than {limits.decoded_bytes} bytes", "send fewer rows or labels")
    rank = np.array([classes.index(label) if label else -1 for label in names] + [-1])
    codes = rank[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    stored = np.zeros((len(missing), len(classes)), np.float32)
    stored[owners[codes >= 0], codes[codes >= 0]] = 1
    stored[missing] = np.nan
    return columns.of_labels(name, stored, classes, place, limits)
