"""Turns rows as a client sends them to predict into what a model is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.spec.data import InputSchema
from app.spec.faults import MOST, Fault, Invalid, nearest, pointer

LARGEST = float(np.finfo(np.float32).max)


def encode_rows(rows: Sequence[object], input: InputSchema) -> NDArray[np.float32]:
    """(len(rows), *input.shape) float32, in the units of the data set: the model divides pixels by `scale` itself.

    A row of images is nested lists, (height, width, channels), or (height, width) where there is one channel. A row of a
    table is a list with one number a feature, or an object with each column's number, or its word for a category.

    Raises:
        Invalid: with every fault (the first hundred); pointers begin with the row's number, from 0.
    """
    encoded = np.zeros((len(rows), *input.shape), np.float32)
    faults: list[Fault] = []
    for number, row in enumerate(rows):
        place, found = pointer(number), len(faults)
        if input.kind == "table" and isinstance(row, Mapping):
            flat = _of_columns(row, input, place, faults)
        else:
            flat = list(_of_lists(row, _shape(row, input), input, place, faults))
        if len(faults) >= MOST:
            break
        if len(faults) == found:
            encoded[number] = np.array(flat, np.float64).reshape(input.shape)
    if faults:
        raise Invalid(faults[:MOST])
    return encoded


def _shape(row: object, input: InputSchema) -> list[int]:
    """The shape that a row should have: the input's, without its channels where there is one and the row leaves it out."""
    depth, inner = 0, row
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    if input.kind == "image" and input.shape[-1] == 1 and depth == len(input.shape) - 1:
        return input.shape[:-1]
    return input.shape


def _of_lists(
    value: object, shape: Sequence[int], input: InputSchema, place: str, faults: list[Fault]
) -> Iterator[float]:
    """The numbers in nested lists of `shape`, in order; what does not fit is a fault at its own place."""
    if not shape:
        number = _number(value, input, place, faults)
        if number is not None:
            yield number
    elif not isinstance(value, list) or len(value) != shape[0]:
        received = f"a list of {len(value)}" if isinstance(value, list) else "something else"
        whole = "×".join(map(str, input.shape))
        objects = ", or an object of columns" if input.kind == "table" else ""
        faults.append(
            Fault(place, f"expected a list of {shape[0]}, received {received}", f"a row is {whole} numbers{objects}")
        )
    else:
        for index, part in enumerate(value):
            if len(faults) >= MOST:
                return
            yield from _of_lists(part, shape[1:], input, place + pointer(index), faults)


def _of_columns(row: Mapping[str, object], input: InputSchema, place: str, faults: list[Fault]) -> list[float]:
    """The feature vector of an object {column: value}."""
    columns = dict.fromkeys(feature.column for feature in input.features)
    unknown = [str(name) for name in row if name not in columns][:MOST]
    faults += [
        Fault(place + pointer(name), "unknown column", nearest(name, list(columns), "columns"), "unknown_field")
        for name in unknown
    ]
    missing = [name for name in columns if name not in row]
    faults += [Fault(place + pointer(name), "this column is required", None, "missing") for name in missing]
    words: dict[str, list[str]] = {}
    for feature in input.features:
        if feature.equals is not None:
            words.setdefault(feature.column, []).append(feature.equals)
    for name, known in words.items():
        if name in row and row[name] not in known:
            text = row[name]
            hint = (
                nearest(text, known, "words") if isinstance(text, str) else "expected one of the words of this column"
            )
            faults.append(Fault(place + pointer(name), "this column has no such word", hint, "unknown_name"))
    flat: list[float] = []
    for feature in input.features:
        if feature.equals is not None:
            flat.append(float(row.get(feature.column) == feature.equals))
        elif feature.column in row:
            number = _number(row[feature.column], input, place + pointer(feature.column), faults)
            flat.append(0.0 if number is None else number)
    return flat


def _number(value: object, input: InputSchema, place: str, faults: list[Fault]) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        faults.append(Fault(place, "expected a number"))
        return None
    if not abs(value) <= LARGEST:  # so written, NaN is refused as well
        faults.append(Fault(place, "expected a finite number that a 32-bit float can hold"))
        return None
    if input.kind == "image" and input.scale == 255 and not 0 <= value <= 255:
        faults.append(Fault(place, "expected a pixel of 0 to 255"))
        return None
    return float(value)
