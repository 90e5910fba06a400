"""Nested lists of numbers, as JSON has them, become arrays; a value that does not fit is a fault at its own place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
from numpy.typing import NDArray

from app.spec.faults import MOST, Fault, pointer

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Numbers:
    """The numbers allowed: from `low` to `high`, else a fault says `outside`. `row` describes a whole row, for hints."""

    row: str
    low: float = -LARGEST
    high: float = LARGEST
    outside: str = ""

    def read(self, row: object, shape: Sequence[int], place: str, faults: list[Fault]) -> NDArray[np.float64] | None:
        """The numbers of a row, flat and in order; None where faults were added."""
        numbers = self._faultless(row, shape)
        if numbers is not None:
            return numbers
        before = len(faults)
        flat = list(self._of_lists(row, shape, place, faults))
        return np.array(flat, np.float64) if len(faults) == before else None

    def number(self, value: object, place: str, faults: list[Fault]) -> float | None:
        """One number; None where a fault was added."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            faults.append(Fault(place, "expected a number"))
            return None
        if not abs(value) <= LARGEST:  # so written, NaN is refused as well
            faults.append(Fault(place, "expected a finite number that a 32-bit float can hold"))
            return None
        if not self.low <= value <= self.high:
            faults.append(Fault(place, self.outside))
            return None
        return float(value)

    def _faultless(self, row: object, shape: Sequence[int]) -> NDArray[np.float64] | None:
        """As `read`, without a step of Python for each number; None where `_of_lists` may find a fault."""
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
        return (
            numbers if ((numbers >= self.low) & (numbers <= self.high)).all() else None
        )  # so written, NaN is none either

    def _of_lists(self, value: object, shape: Sequence[int], place: str, faults: list[Fault]) -> Iterator[float]:
        if not shape:
            number = self.number(value, place, faults)
            if number is not None:
                yield number
        elif not isinstance(value, list) or len(value) != shape[0]:
            received = f"a list of {len(value)}" if isinstance(value, list) else "something else"
            faults.append(Fault(place, f"expected a list of {shape[0]}, received {received}", f"a row is {self.row}"))
        else:
            for index, part in enumerate(value):
                if len(faults) >= MOST:
                    return
                yield from self._of_lists(part, shape[1:], place + pointer(index), faults)


def times(shape: Sequence[int]) -> str:
    """A shape in words: 28×28×1."""
    return "×".join(str(side) for side in shape)
