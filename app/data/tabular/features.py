"""Columns of a frame become a table's features, each with what it was taken for and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.data import columns, dates, layout
from app.data.columns import Asked
from app.data.tabular import cells as reading
from app.data.tabular import date_text
from app.data.tabular.cells import Cells
from app.data.tabular.frame import Frame
from app.data.tabular.guess import LEFT_OUT, TEXT, Guess, guess
from app.data.upload_limits import UploadLimits
from app.spec.data import DatePart, Feature
from app.spec.faults import Fault
from app.spec.intake import ColumnReading

TYPES: tuple[columns.Wanted, ...] = ("number", "category", "date", "date-dmy", "date-mdy")


@dataclass
class Features:
    """The features so far, a vector of each, and what became of the columns."""

    limits: UploadLimits
    rows: int
    features: list[Feature] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    readings: list[ColumnReading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    width: int = 0

    def add(self, features: Sequence[Feature], vectors: Sequence[np.ndarray]) -> None:
        """Features of a column, unless all of them together are too many: they are counted all the same, for the fault."""
        self.width += layout.width(features)
        self.features += features
        stored = len(self.features) * self.rows * 4
        if self.width <= self.limits.features and stored <= self.limits.decoded_bytes:
            self.vectors += vectors

    def say(self, name: str, read_as: str, why: str, remarks: Sequence[str] = ()) -> None:
        """Records what a column was taken for. `remarks` on how its cells were read are notes as well."""
        self.readings.append(ColumnReading(column=name, read_as=read_as, why="; ".join([why, *remarks])))
        self.notes += [f"{name}: {remark}" for remark in remarks]

    def text_alone(self) -> list[str]:
        """The only column of texts, where nothing else is of use; else none."""
        texts = [reading.column for reading in self.readings if reading.read_as == TEXT]
        return texts if len(texts) == 1 and not self.features else []

    def check(self) -> None:
        """Adds the faults of all features together."""
        stored = len(self.features) * self.rows * 4
        if not self.faults and not self.features:
            left = ", ".join(f"{read.column} ({read.read_as})" for read in self.readings if read.read_as in LEFT_OUT)
            hint = (
                f"left out were {left[:500]}: name those to use in `inputs`"
                if left
                else "give columns besides the targets"
            )
            self.faults.append(Fault("/file", "no column is left to be a feature", hint))
        elif self.width > self.limits.features:
            message = f"{self.width} features, at most {self.limits.features} are allowed"
            self.faults.append(Fault("/file", message, "leave out columns of many different words"))
        elif stored > self.limits.decoded_bytes:
            message = f"the features take more than {self.limits.decoded_bytes} bytes"
            self.faults.append(Fault("/file", message, "send fewer rows or columns"))


def of_frame(
    frame: Frame,
    targets: Sequence[Asked],
    remarks: Mapping[str, Sequence[str]],
    inputs: Sequence[Asked],
    limits: UploadLimits,
) -> Features:
    """The features of a frame: the columns in `inputs`, and no others; where there are none, all but the targets. With all faults.

    Args:
        remarks: on how the targets were read.
    """
    made = Features(limits, frame.rows)
    wanted = {column.column: column for column in inputs}
    learnt = {column.column: column for column in targets}
    for name in frame.names:
        if name in learnt:
            how = learnt[name].wanted
            made.say(name, "target", f"read as {how}" if how else "to be learnt", remarks.get(name, ()))
        elif inputs and name not in wanted:
            made.say(name, "unused", "it is not among `inputs`")
        else:
            _add(reading.of(frame, name, _asks_numbers(wanted.get(name))), wanted.get(name), made)
    made.check()
    return made


def _asks_numbers(asked: Asked | None) -> bool:
    return asked is not None and asked.wanted == "number"


def _add(cells: Cells, asked: Asked | None, made: Features) -> None:
    """Adds a column's features, its reading, and a note where it is left out; or what is wrong with it."""
    took = _asked_for(cells, asked) if asked is not None else cells.fault or guess(cells)
    fault = took if isinstance(took, Fault) else None
    if not isinstance(took, Fault):
        remarks = cells.remarks
        if took.kind == "number":
            fault = cells.fault or _number(cells, made)
        elif took.kind in ("category", "boolean"):
            fault = _category(cells, made)
        elif took.kind == "date":
            how = _date(cells, asked, made)
            fault, remarks = (how, ()) if isinstance(how, Fault) else (None, (f"read with {how}",) * bool(how))
        else:
            made.notes.append(_note(cells.name, took))
        made.say(cells.name, took.kind, took.why, remarks)
    if fault is not None:
        made.faults.append(fault)


def _note(name: str, took: Guess) -> str:
    """A sentence on a column that is left out."""
    if took.kind in ("empty", "labels", "many"):
        return f"{name} is left out: {took.why}"
    if took.kind == TEXT:
        return f"{name} is left out as a text: {took.why}; -F inputs={name}:text learns from it, and from columns named beside it"
    a = "an id" if took.kind == "id" else "a constant"
    return f"{name} is left out as {a}: {took.why}; name all columns to use in `inputs` to keep it"


def _asked_for(cells: Cells, asked: Asked) -> Guess | Fault:
    """What a column named in `inputs` is: of the type that was asked for, else by its values, and kept wherever it can be."""
    wanted = asked.wanted
    if not len(cells.missing) or cells.missing.all():
        return Fault(cells.place, "no row has a value", "leave the column out")
    if cells.labels is not None:
        return Fault(cells.place, "it holds lists, which are no feature", "leave it out, or name it in `targets`")
    if wanted is None:
        if cells.fault:
            return cells.fault
        took = guess(cells)
        if took.kind == TEXT:
            return Fault(
                cells.place, f"it holds texts: {took.why}", "leave it out, or add :text or :category to its name"
            )
        if took.kind not in LEFT_OUT:
            return took
        return Guess("category" if cells.numbers is None else "number", "it is named in `inputs`")
    if wanted == "number":
        if cells.numbers is None and not cells.fault:
            return Fault(cells.place, "asked for as numbers, but it holds other values", "write numbers")
        return Guess("number", "asked for")
    if wanted == "category":
        if cells.dates is not None:
            return Fault(
                cells.place, "asked for as words, but it holds dates", "write the dates as texts, or ask for date"
            )
        return Guess("category", "asked for")
    if cells.dates is None and not len(cells.codes):
        return Fault(cells.place, "asked for as dates, but it holds numbers", date_text.HINT)
    return Guess("date", "asked for")


def _number(cells: Cells, made: Features) -> Fault | None:
    assert cells.numbers is not None
    fault = columns.fault_in_whole_numbers(cells.numbers, cells.place, cells.written)
    if fault is None:
        feature = Feature(column=cells.name, missing=bool(cells.missing.any()))
        made.add([feature], [cells.floats().astype(np.float32)])
    return fault


def _category(cells: Cells, made: Features) -> Fault | None:
    if len(cells.codes):
        ordered = reading.in_order(cells)
        words, codes = ordered.words(), ordered.codes
    else:  # numbers of a file that has types
        assert cells.numbers is not None
        distinct, inverse = np.unique(cells.numbers[~cells.missing], return_inverse=True)
        words = columns.whole_number_names(distinct[: made.limits.classes + 1])
        codes = np.full(made.rows, -1)
        codes[~cells.missing] = inverse
    fault = columns.fault_in_classes(words, cells.place, made.limits, least=1)
    if fault is None:
        feature = Feature(column=cells.name, classes=words, missing=bool((codes < 0).any()))
        made.add([feature], [np.where(codes < 0, np.nan, codes).astype(np.float32)])
    return fault


def _date(cells: Cells, asked: Asked | None, made: Features) -> Fault | str:
    """How the dates were read, or what is wrong with them."""
    values, how = cells.dates, ""
    if cells.fault:
        return cells.fault
    if values is None:
        result = date_text.read(cells.distinct, cells.place, asked.wanted if asked else None)
        if isinstance(result, Fault):
            return result
        values, how = np.append(result[0], np.datetime64("NaT", "s"))[cells.codes], result[1]
    parts, missing = dates.parts(values), bool(cells.missing.any())
    used: Sequence[DatePart] = dates.used(values)
    made.add([Feature(column=cells.name, part=part, missing=missing) for part in used], [parts[part] for part in used])
    return "" if how == "ISO" else how
