"""Rows of a table: a vector of numbers, in which a category is the number of its word, and NaN is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from app.data import columns, dates, layout
from app.data.inputs import Encode
from app.data.lists import Numbers, times
from app.data.names import column_pointer, fault_in_name
from app.data.table import Hashes, row_hashes
from app.spec.data import DatePart, Feature, InputSchema
from app.spec.faults import MOST, Fault, nearest, pointer

DIMENSIONS = 1
ARCHITECTURE, STUDENT = "mlp", "mlp"
AUGMENTATIONS: frozenset[str] | None = frozenset({"noise", "mixup"})
RESIZED = False


def takes(values: np.ndarray) -> bool:
    return values.ndim == 2


def read(values: np.ndarray, names: list[str] | None, place: str) -> tuple[np.ndarray, InputSchema] | list[Fault]:
    """float32; features without names are x0, x1, …"""
    numbers = columns.as_float32(values, place)
    if isinstance(numbers, Fault):
        return [numbers]
    whole = _whole_number_faults(values, names, place)
    if whole:
        return whole
    named = names if names is not None else [f"x{k}" for k in range(numbers.shape[1])]
    reasons = [reason for reason in map(fault_in_name, named) if reason]
    if len(named) != numbers.shape[1] or len(set(named)) < len(named) or reasons:
        message = reasons[0] if reasons else f"expected {numbers.shape[1]} different names"
        return [Fault(pointer("file", "member", "feature_names.npy"), message, "name each feature once, in order")]
    features = [Feature(column=text) for text in named]
    return numbers, InputSchema(kind="table", shape=[numbers.shape[1]], features=features)


def hashes(inputs: np.ndarray, input: InputSchema) -> Hashes:  # noqa: ARG001
    """Of the numbers as float32."""
    return row_hashes(inputs)


def prepared_shape(input: InputSchema) -> list[int]:
    """The shape of a row as a network sees it, see `app.data.layout`. A schema without features has plain numbers alone."""
    return [layout.width(input.features)] if input.features else input.shape


def mixing_refusal(input: InputSchema) -> str | None:
    """Why two rows have no mean; None: they have."""
    if layout.plain(input.features):
        return None
    return "rows of a table with categories or missing values cannot be mixed: the mean of two words is no word"


def encoder(input: InputSchema) -> Encode:
    """A list with one number a feature, or an object with each column's number, its word for a category, or its date in ISO form.

    null is a missing value, where the column has some.
    """
    numbers = Numbers(f"{times(input.shape)} numbers, or an object of columns")
    columns = _columns(input)  # once, whatever the rows
    odd = [at for at, feature in enumerate(input.features) if feature.missing or feature.classes is not None]

    def encode(row: object, place: str, faults: list[Fault]) -> np.ndarray | None:
        if isinstance(row, Mapping):
            return _of_columns(row, columns, input, numbers, place, faults)
        if odd and isinstance(row, list) and len(row) == len(input.features):
            return _of_list(row, odd, input, numbers, place, faults)
        return numbers.read(row, input.shape, place, faults)

    return encode


def preview(row: np.ndarray, input: InputSchema) -> Any:
    """An object of the table's columns."""
    cells: dict[str, Any] = {}
    parts: dict[str, dict[DatePart, float]] = {}
    for feature, value in zip(input.features, row, strict=True):
        if np.isnan(value):
            cells[feature.column] = None
        elif feature.classes is not None:
            cells[feature.column] = feature.classes[int(value)]
        elif feature.part is not None:
            cells[feature.column] = None  # holds the column's place until all parts are there
            parts.setdefault(feature.column, {})[feature.part] = float(value)
        elif feature.equals is None:
            cells[feature.column] = float(value)
        elif value:
            cells[feature.column] = feature.equals
    return cells | {column: dates.written(values) for column, values in parts.items()}


def _whole_number_faults(values: np.ndarray, names: list[str] | None, place: str) -> list[Fault]:
    """A fault for each feature whose whole numbers a 32-bit float would change."""
    named = names is not None and len(names) == values.shape[1]
    faults = []
    for number in range(values.shape[1]):
        fault = columns.fault_in_whole_numbers(values[:, number], place)
        if fault:
            name = names[number] if named and names is not None else f"x{number}"
            faults.append(replace(fault, pointer=column_pointer(name, number)))
    return faults


@dataclass(frozen=True)
class _Column:
    """Where a column stands in a stored row.

    `at`: the place of its number or code, or of each part of its date. `words`: of a category, each with the number that stands for it;
    in older data sets (`indicators`) with its place.
    """

    at: tuple[int, ...]
    feature: Feature
    words: Mapping[str, int] | None = None
    indicators: bool = False
    parts: tuple[DatePart, ...] = ()


def _columns(input: InputSchema) -> dict[str, _Column]:
    """The columns of a table, by name."""
    columns: dict[str, _Column] = {}
    indicators: dict[str, dict[str, int]] = {}
    parts: dict[str, list[tuple[int, DatePart]]] = {}
    for at, feature in enumerate(input.features):
        name = feature.column
        if feature.equals is not None:
            words = indicators.setdefault(name, {})
            words[feature.equals] = at
            columns.setdefault(name, _Column((), feature, words, indicators=True))
        elif feature.part is not None:
            parts.setdefault(name, []).append((at, feature.part))
            columns.setdefault(name, _Column((), feature))
        else:
            classes = feature.classes
            codes = None if classes is None else {word: code for code, word in enumerate(classes)}
            columns[name] = _Column((at,), feature, codes)
    for name, there in parts.items():
        columns[name] = replace(columns[name], at=tuple(at for at, _ in there), parts=tuple(part for _, part in there))
    return columns


def _of_columns(
    row: Mapping[str, object],
    columns: Mapping[str, _Column],
    input: InputSchema,
    numbers: Numbers,
    at: str,
    faults: list[Fault],
) -> np.ndarray | None:
    """The vector of an object {column: value}; None where faults were added."""
    before, vector = len(faults), np.zeros(input.shape, np.float64)
    unknown = islice((str(name) for name in row if name not in columns), MOST)
    faults += [
        Fault(at + pointer(name), "unknown column", nearest(name, columns, "columns"), "unknown_field")
        for name in unknown
    ]
    for name, column in columns.items():
        if len(faults) >= MOST:
            break
        value, place = row.get(name), at + pointer(name)
        if name not in row:
            faults.append(Fault(place, "this column is required", None, "missing"))
        elif value is None and column.feature.missing:
            vector[list(column.at)] = np.nan
        elif column.parts:
            date = dates.read(value) if isinstance(value, str) else None
            if date is None:
                faults.append(Fault(place, "expected a date", "write it as 2026-11-27, or 2026-11-27T08:30"))
            else:
                values = dates.parts(date)
                vector[list(column.at)] = [values[part][0] for part in column.parts]
        elif column.words is None:
            number = numbers.number(value, place, faults)
            if number is not None:
                vector[column.at[0]] = number
        else:
            code = _code(value, column, place, faults)
            if code is not None and column.indicators:
                vector[code] = 1.0
            elif code is not None:
                vector[column.at[0]] = code
    return vector if len(faults) == before else None


def _code(value: object, column: _Column, place: str, faults: list[Fault]) -> int | None:
    """The number of a word; of one that no row had, of a category with a place for others, the number after the last. None where a fault
    was added."""
    assert column.words is not None
    word = value
    if isinstance(value, bool):
        word = "true" if value else "false"
    elif isinstance(value, int) and abs(value) < 2**63:
        word = str(value)  # of a column whose words are numbers
    if isinstance(word, str) and word in column.words:
        return column.words[word]
    if isinstance(value, str) and layout.capped(column.feature):
        return len(column.words)
    hint = (
        nearest(value, column.words, "words") if isinstance(value, str) else "expected one of the words of this column"
    )
    faults.append(Fault(place, "this column has no such word", hint, "unknown_name"))
    return None


def _of_list(
    row: list[object], odd: Sequence[int], input: InputSchema, numbers: Numbers, at: str, faults: list[Fault]
) -> np.ndarray | None:
    """The vector of a stored row's numbers, null for NaN; None where faults were added. `odd`: features that are no plain numbers."""
    before = len(faults)
    missing = [place for place in odd if row[place] is None and input.features[place].missing]
    filled = list(row)
    for place in missing:
        filled[place] = 0
    vector = numbers.read(filled, input.shape, at, faults)
    if vector is None:
        return None
    for place in odd:
        feature = input.features[place]
        if feature.classes is None:
            continue
        most = len(feature.classes) - (not layout.capped(feature))
        if not (0 <= vector[place] <= most and vector[place] == int(vector[place])):
            message = f"expected the number of a class, from 0 to {most}"
            faults.append(
                Fault(at + pointer(place), message, "or give an object of columns, with the words themselves")
            )
    vector[missing] = np.nan
    return vector if len(faults) == before else None
