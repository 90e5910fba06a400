"""Turns raw values into a column that a task can learn: classes, numbers or labels. All that is wrong becomes faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.data.names import fault_in_name
from app.data.table import describe, labelled
from app.data.upload_limits import UploadLimits
from app.spec.data import Column
from app.spec.faults import Fault, nearest, pointer

Wanted = Literal["number", "category", "labels", "date", "date-dmy", "date-mdy", "text"]
TEXT: Wanted = "text"
Values = np.ndarray

MOST_NAMED = 1001  # one more class than any limit allows is enough to know that there are too many
BLOCK = 2**20  # values
MOST_EXACT_FLOAT32, MOST_EXACT_FLOAT64 = 2**24, 2**53  # up to there a float holds every whole number
FEW_WHOLE_NUMBERS = 20  # a target of at most so many different whole numbers is read as classes


@dataclass(frozen=True)
class Asked:
    """A column as asked for at the upload, and how to read it (None: by its values)."""

    column: str
    wanted: Wanted | None = None


def parse_asked(
    asked: Sequence[str], there: Sequence[str], field: str, types: Sequence[Wanted]
) -> tuple[list[Asked], list[Fault]]:
    """Columns of an upload's form: `age:number` reads age as numbers, `age` by its values. Unknown and repeated columns are faults."""
    columns: dict[str, Asked] = {}
    faults: list[Fault] = []
    names = set(there)
    for number, text in enumerate(asked):
        place = pointer(field, number)
        name, _, suffix = text.rpartition(":")
        wanted = next((wanted for wanted in types if wanted == suffix), None)
        column = Asked(text) if text in names or wanted is None else Asked(name, wanted)
        if column.column in columns:
            faults.append(Fault(place, "this column is named twice", "name it once"))
        elif column.column in names:
            columns[column.column] = column
        elif wanted is None and name in names:
            message = "the file has no such column, and a column's type is another word"
            faults.append(Fault(place, message, f"types: {', '.join(types)}", "unknown_name"))
        else:
            hint = nearest(column.column, there, "columns")
            faults.append(Fault(place, "the file has no such column", hint, "unknown_name"))
    return list(columns.values()), faults


def parse_targets(asked: Sequence[str], there: Sequence[str]) -> tuple[list[Asked], list[Fault]]:
    """The targets of an npz, whose labels are two-dimensional already."""
    return parse_asked(asked, there, "targets", ("number", "category"))


def fault_in_whole_numbers(values: Values, place: str, written: Values | None = None) -> Fault | None:
    """Why a column of whole numbers cannot be kept as 32-bit floats, or None. Beyond 2^24 floats hold only some whole numbers: two
    would become one. A column that holds a fraction is a measurement, which may be rounded.

    Args:
        values: integers or floats, NaN is missing.
        written: which of the floats were written as whole numbers. Beyond 2^53, where a float has no fraction, no others count as such.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if size <= 2 or (kind == "f" and size <= 4) or _largest(values) <= MOST_EXACT_FLOAT32:
        return None
    step = max(1, BLOCK // max(1, values[0].size))  # a copy of the whole may not fit
    parts = [slice(start, start + step) for start in range(0, len(values), step)]
    if kind == "f" and any((np.floor(values[part]) < values[part]).any() for part in parts):
        return None
    changed = [_changed(values[part], None if written is None else written[part]) for part in parts]
    rows = np.flatnonzero(np.concatenate([part.reshape(len(part), -1).any(axis=1) for part in changed]))
    if not len(rows):
        return None
    message = f"row {rows[0] + 1} holds a whole number that a 32-bit float cannot hold exactly, as do {len(rows)} rows"
    return Fault(place, message, "scale or shift the column, give it as fractions, or leave it out")


def as_float32(values: Values, place: str) -> Values | Fault:
    """Inputs as they are stored; a fault where a row is not finite."""
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, np.float32)
    bad = np.flatnonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
    if len(bad):
        message = f"row {bad[0] + 1} holds NaN, infinity or a number beyond a 32-bit float, as do {len(bad)} rows"
        return Fault(place, message, "inputs must be finite: fill the gaps in or leave the rows out")
    return numbers


def _largest(values: Values) -> float:
    """The largest absolute value; NaN does not count."""
    return max(float(np.fmax.reduce(values, axis=None)), -float(np.fmin.reduce(values, axis=None)))


def _changed(values: Values, written: Values | None) -> Values:
    """Which of these whole numbers a 32-bit float changes."""
    if values.dtype.kind == "f":
        counted = np.abs(values) <= MOST_EXACT_FLOAT64
        counted = counted if written is None else counted | written
        return np.asarray(counted & (values.astype(np.float32) != values))
    signed = values.dtype.kind == "i"
    size = np.abs(values.astype(np.int64)).view(np.uint64) if signed else values.astype(np.uint64)
    lowest = size & (~size + np.uint64(1))  # its lowest bit that is 1: a float32 holds 24 bits from there on
    return np.asarray((size >> np.uint64(24)) >= np.maximum(lowest, np.uint64(1)))


def of_codes(
    name: str, values: Values, classes: Sequence[str], place: str, limits: UploadLimits
) -> tuple[Values, Column] | Fault:
    """A category from class numbers; -1 is missing."""
    wrong = np.flatnonzero((values < -1) | (values >= len(classes)))
    if len(wrong):
        message = f"row {wrong[0] + 1} has a class number outside -1 (missing) to {len(classes) - 1}, as {len(wrong)} rows have"
        return Fault(place, message, f"classes_{name} must name every class, in the order of their numbers")
    fault = fault_in_classes(classes, place, limits)
    return fault or _category(name, values.astype(np.int32), classes, place)


def of_distinct(
    name: str, inverse: Values, distinct: Sequence[str], place: str, limits: UploadLimits
) -> tuple[Values, Column] | Fault:
    """A category from its distinct values, in order, and each row's index among them (-1: missing)."""
    fault = fault_in_classes(distinct, place, limits)
    return fault or _category(name, inverse.astype(np.int32), distinct, place)


def of_numbers(name: str, values: Values, place: str, written: Values | None = None) -> tuple[Values, Column] | Fault:
    """Numbers or vectors of numbers; NaN is missing, anything infinite (also once it is a float32) a fault.

    `written`: as in `fault_in_whole_numbers`.
    """
    with np.errstate(over="ignore"):
        small = values.astype(np.float32)
    infinite = np.flatnonzero(np.isinf(small).reshape(len(small), -1).any(axis=1))
    if len(infinite):
        return Fault(
            place,
            f"row {infinite[0] + 1} is infinite or beyond a 32-bit float, as are {len(infinite)} rows",
            "scale the column",
        )
    fault = fault_in_whole_numbers(values, place, written)
    if fault:
        return fault
    if small.ndim > 1:  # a vector is there or it is not
        small[np.isnan(small).any(axis=1)] = np.nan
    if not labelled(small).any():
        return Fault(place, "no row has a value", "fill the column in, or leave it out")
    return small, describe(name, small)


def of_labels(
    name: str, values: Values, classes: Sequence[str] | None, place: str, limits: UploadLimits
) -> tuple[Values, Column] | Fault:
    """A row of 0 and 1 for each label; NaN is missing."""
    names = list(classes) if classes is not None else [str(number) for number in range(values.shape[1])]
    if len(names) != values.shape[1]:
        return Fault(place, f"{values.shape[1]} labels, but classes_{name} names {len(names)}", "name each label once")
    fault = fault_in_classes(names, place, limits, least=1)
    if fault:
        return fault
    stored = values.astype(np.float32)
    if not labelled(stored).any():
        return Fault(place, "no row has a value", "fill the column in, or leave it out")
    return stored, describe(name, stored, names, labels=True)


def fault_in_classes(classes: Sequence[str], place: str, limits: UploadLimits, least: int = 2) -> Fault | None:
    """Why these cannot be the names of classes, or None."""
    if len(classes) > limits.classes:
        return Fault(
            place,
            f"more than {limits.classes} different values: this is no category",
            "leave the column out, or give numbers",
        )
    if len(classes) < least:
        return Fault(
            place, f"{len(classes)} different values, a category needs {least} or more", "leave the column out"
        )
    if len(set(classes)) < len(classes):
        return Fault(place, "two classes have the same name", "give each class a name of its own")
    reasons = [reason for reason in map(fault_in_name, classes) if reason]
    if reasons:
        return Fault(
            place, f"in {len(reasons)} class names: {reasons[0]}", "name classes with 1 to 128 printable characters"
        )
    return None


def whole_number_names(values: Values) -> list[str]:
    """The names of classes that were given as numbers: "3" for 3 and 3.0."""
    return [str(int(value)) if float(value).is_integer() else repr(float(value)) for value in values]


def _category(name: str, codes: Values, classes: Sequence[str], place: str) -> tuple[Values, Column] | Fault:
    if not (codes >= 0).any():
        return Fault(place, "no row has a value", "fill the column in, or leave it out")
    return codes, describe(name, codes, classes)
