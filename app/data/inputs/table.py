"""Rows of a table: a vector of numbers, in which a category has a place for each of its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from app.data import columns
from app.data.inputs import Encode
from app.data.lists import Numbers, times
from app.data.names import column_pointer, fault_in_name
from app.data.table import Hashes, row_hashes
from app.spec.data import Feature, InputSchema
from app.spec.faults import MOST, Fault, nearest, pointer

DIMENSIONS = 1
ARCHITECTURE, STUDENT = "mlp", "mlp"
AUGMENTATIONS: frozenset[str] | None = frozenset({"noise"})
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


def encoder(input: InputSchema) -> Encode:
    """A list with one number a feature, or an object with each column's number, or its word for a category."""
    numbers = Numbers(f"{times(input.shape)} numbers, or an object of columns")
    places = _places(input)

    def encode(row: object, place: str, faults: list[Fault]) -> np.ndarray | None:
        if isinstance(row, Mapping):
            return _of_columns(row, places, input, numbers, place, faults)
        return numbers.read(row, input.shape, place, faults)

    return encode


def decoding(input: InputSchema) -> None:
    """No file is a row of a table."""


def preview(row: np.ndarray, input: InputSchema) -> Any:
    """An object of the table's columns."""
    cells: dict[str, Any] = {}
    for feature, value in zip(input.features, row, strict=True):
        if feature.equals is None:
            cells[feature.column] = float(value)
        elif value:
            cells[feature.column] = feature.equals
    return cells


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


def _places(input: InputSchema) -> dict[str, int | dict[str, int]]:
    """Where each column of a table stands in its vector: its number's place, or the place of each of its words."""
    places: dict[str, int | dict[str, int]] = {}
    for position, feature in enumerate(input.features):
        if feature.equals is None:
            places[feature.column] = position
        else:
            positions = places.setdefault(feature.column, {})
            assert isinstance(positions, dict)
            positions[feature.equals] = position
    return places


def _of_columns(
    row: Mapping[str, object],
    places: Mapping[str, int | dict[str, int]],
    input: InputSchema,
    numbers: Numbers,
    at: str,
    faults: list[Fault],
) -> np.ndarray | None:
    """The vector of an object {column: value}; None where faults were added."""
    before, vector = len(faults), np.zeros(input.shape, np.float64)
    unknown = islice((str(name) for name in row if name not in places), MOST)
    faults += [
        Fault(at + pointer(name), "unknown column", nearest(name, places, "columns"), "unknown_field")
        for name in unknown
    ]
    for name, there in places.items():
        if len(faults) >= MOST:
            break
        value, place = row.get(name), at + pointer(name)
        if name not in row:
            faults.append(Fault(place, "this column is required", None, "missing"))
        elif isinstance(there, int):
            number = numbers.number(value, place, faults)
            if number is not None:
                vector[there] = number
        elif isinstance(value, str) and value in there:
            vector[there[value]] = 1.0
        else:
            hint = (
                nearest(value, there, "words") if isinstance(value, str) else "expected one of the words of this column"
            )
            faults.append(Fault(place, "this column has no such word", hint, "unknown_name"))
    return vector if len(faults) == before else None
