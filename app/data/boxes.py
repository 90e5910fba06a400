"""Boxes on pictures, as annotations give them and as a data set stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

COLUMN = "boxes"
PAD = -1.0
"""What stands in all five places of a stored row beyond a picture's last box."""

LEAST_LEFT = 0.25
"""The share of a box that must be left once its picture is cropped or moved; of less it is none."""


@dataclass(frozen=True)
class PictureBoxes:
    """The boxes of one picture.

    `values`: (k, 4) float64 of left, top, right and bottom, and `names` the class of each. `size`: the (height, width)
    that the annotation states for the picture, None where it states none. `shares`: whether the values are shares of
    the picture's sides; else they are pixels."""

    values: np.ndarray
    names: list[str]
    size: tuple[int, int] | None = None
    shares: bool = False


@dataclass
class Annotated:
    """The boxes of all candidates of an upload, in their order.

    `why`: what they were read from, in words. `classes`: the names, sorted; `rows`: by the number of a candidate its
    boxes as they are stored, (k, 5) float32; both are known once the pictures' sizes are."""

    why: str
    pictures: list[PictureBoxes]
    classes: list[str] = field(default_factory=list)
    rows: dict[int, np.ndarray] = field(default_factory=dict)

    def column(self, kept: Sequence[int]) -> np.ndarray:
        """(rows, most, 5) float32 of the candidates that were kept, as `stored` makes it."""
        return stored([self.rows[number] for number in kept])


def stored(rows: Sequence[np.ndarray]) -> np.ndarray:
    """A column of boxes, (n, most, 5) float32, of each row's (k, 5): left, top, right and bottom in shares of the
    stored picture's width and height, and the number of the class; −1 throughout beyond a picture's last box."""
    most = max([1, *map(len, rows)])
    whole = np.full((len(rows), most, 5), PAD, np.float32)
    for row, boxes in zip(whole, rows, strict=True):
        row[: len(boxes)] = boxes
    return whole


def in_words(row: np.ndarray, classes: Sequence[str], shape: Sequence[int]) -> list[dict[str, Any]]:
    """The boxes of a stored row, (most, 5), each with its class and its edges in pixels of a picture of `shape`
    (height, width, …)."""
    sides = [shape[1], shape[0], shape[1], shape[0]]
    return [
        {
            "label": classes[int(code)],
            "box": [round(float(edge) * side, 3) for edge, side in zip(edges, sides, strict=True)],
        }
        for *edges, code in row[row[:, 4] >= 0]
    ]
