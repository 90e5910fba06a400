"""Boxes on pictures, as annotations give them and as a data set stores them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

COLUMN = "boxes"
PAD = -1.0
"""What stands in all five places of a stored row beyond a picture's last box."""


@dataclass(frozen=True)
class PictureBoxes:
    """The boxes of one picture.

    `values`: (k, 4) float64 of left, top, right and bottom, and `names` the class of each. `size`: the (height, width) that the annotation
    states for the picture, None where it states none. `shares`: whether the values are shares of the picture's sides; else they are pixels.
    """

    values: np.ndarray
    names: list[str]
    size: tuple[int, int] | None = None
    shares: bool = False


@dataclass
class Drawn:
    """The boxes of all pictures of a layout, in its order.

    `format`: of the annotations; `why`: what they were read from, in words. `classes`: the names, sorted; `rows`: by the number of a
    candidate its boxes as they are stored, (k, 5) float32; both are known once the pictures' sizes are.
    """

    format: str
    why: str
    pictures: list[PictureBoxes]
    classes: list[str] = field(default_factory=list)
    rows: dict[int, np.ndarray] = field(default_factory=dict)

    def column(self, kept: list[int]) -> np.ndarray:
        """(rows, most, 5) float32 of the candidates that were kept: left, top, right and bottom in shares of the stored picture's width
        and height, and the class's number; −1 throughout beyond a picture's last box."""
        most = max([1, *(len(self.rows[number]) for number in kept)])
        stored = np.full((len(kept), most, 5), PAD, np.float32)
        for row, number in zip(stored, kept, strict=True):
            row[: len(self.rows[number])] = self.rows[number]
        return stored
