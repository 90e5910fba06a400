"""Turns rows as a client sends them to predict into what a model is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import cast

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
    # Of sound rows alone: a body of small lists takes no room for large pictures.
    encoded: list[NDArray[np.float32]] = []
    faults: list[Fault] = []
    places = _places(input)
    for number, row in enumerate(rows):
        place, found = pointer(number), len(faults)
        if input.kind == "table" and isinstance(row, Mapping):
            numbers = np.zeros(input.shape)
            for position, value in _of_columns(row, places, input, place, faults):
                numbers[position] = value
        else:
            shape = _shape(row, input)
            given = _faultless(row, shape, input)
            numbers = np.array(list(_of_lists(row, shape, input, place, faults))) if given is None else given
        if len(faults) == found:
            encoded.append(numbers.astype(np.float32).reshape(input.shape))
        if len(faults) >= MOST:
            break
    if faults:
        raise Invalid(faults[:MOST])
    return np.stack(encoded)


def _shape(row: object, input: InputSchema) -> list[int]:
    """The shape that a row should have: the input's, without its channels where there is one and the row leaves it out."""
    depth, inner = 0, row
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    if input.kind == "image" and input.shape[-1] == 1 and depth == len(input.shape) - 1:
        return input.shape[:-1]
    return input.shape


def _faultless(row: object, shape: Sequence[int], input: InputSchema) -> NDArray[np.float64] | None:
    """The numbers of a row in order, found without a step of Python for each; None where `_of_lists` may find a fault."""
    parts = [row]
    for length in shape:
        if not all(isinstance(part, list) and len(part) == length for part in parts):
            return None
        parts = list(chain.from_iterable(cast("list[list[object]]", parts)))
    if not set(map(type, parts)) <= {int, float}:  # not True, which is an int as well
        return None
    try:
        numbers = np.array(parts, np.float64)
    except OverflowError:
        return None
    low, high = (0, 255) if _pixels(input) else (-LARGEST, LARGEST)
    return numbers if ((numbers >= low) & (numbers <= high)).all() else None  # so written, NaN is none either


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


def _places(input: InputSchema) -> dict[str, int | dict[str, int]]:
    """Where each column of a table stands in its vector: its number's place, or the place of each of its words."""
    places: dict[str, int | dict[str, int]] = {}
    for position, feature in enumerate(input.features):
        if feature.equals is None:
            places[feature.column] = position
        else:
            words = places.setdefault(feature.column, {})
            assert isinstance(words, dict)
            words[feature.equals] = position
    return places


def _of_columns(
    row: Mapping[str, object],
    places: Mapping[str, int | dict[str, int]],
    input: InputSchema,
    at: str,
    faults: list[Fault],
) -> Iterator[tuple[int, float]]:
    """The places in the vector that are not 0, each with its number, of an object {column: value}."""
    unknown = islice((str(name) for name in row if name not in places), MOST)
    faults += [
        Fault(at + pointer(name), "unknown column", nearest(name, places, "columns"), "unknown_field")
        for name in unknown
    ]
    for name, there in places.items():
        if len(faults) >= MOST:
            return
        value, place = row.get(name), at + pointer(name)
        if name not in row:
            faults.append(Fault(place, "this column is required", None, "missing"))
        elif isinstance(there, int):
            number = _number(value, input, place, faults)
            if number is not None:
                yield there, number
        elif isinstance(value, str) and value in there:
            yield there[value], 1.0
        else:
            hint = (
                nearest(value, there, "words") if isinstance(value, str) else "expected one of the words of this column"
            )
            faults.append(Fault(place, "this column has no such word", hint, "unknown_name"))


def _number(value: object, input: InputSchema, place: str, faults: list[Fault]) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        faults.append(Fault(place, "expected a number"))
        return None
    if not abs(value) <= LARGEST:  # so written, NaN is refused as well
        faults.append(Fault(place, "expected a finite number that a 32-bit float can hold"))
        return None
    if _pixels(input) and not 0 <= value <= 255:
        faults.append(Fault(place, "expected a pixel of 0 to 255"))
        return None
    return float(value)


def _pixels(input: InputSchema) -> bool:
    return input.kind == "image" and input.scale == 255
