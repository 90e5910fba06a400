"""Turns the rows of a request to predict into a model's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.data import inputs
from app.spec.data import InputSchema
from app.spec.faults import MOST, Fault, Invalid, pointer


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
    encode = inputs.of(input.kind).encoder(input)
    for number, row in enumerate(rows):
        numbers = encode(row, pointer(number), faults)
        if numbers is not None:
            encoded.append(numbers.astype(np.float32))
        if len(faults) >= MOST:
            break
    if faults:
        raise Invalid(faults[:MOST])
    return np.stack(encoded)
