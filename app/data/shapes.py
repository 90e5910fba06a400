"""Synthetic pictures with one to four coloured shapes on noise, a box around each. To try boxes without any pictures of
one's own.

Whole numbers throughout, so that every machine makes the same.
"""

from __future__ import annotations

import numpy as np

from app.data.boxes import stored

SIDE = 48
CLASSES = ("circle", "square", "triangle")

_MOST, _TRIES = 4, 20
_SMALLEST, _LARGEST = 8, 20


def make(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`count` pictures, (count, SIDE, SIDE, 3) uint8; their boxes, as `stored` has them; and the number of the largest
    shape's class, int32. The same every time."""
    rng = np.random.default_rng(2028)
    pictures = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    rows, main = list[np.ndarray](), np.zeros(count, np.int32)
    for number, picture in enumerate(pictures):
        ground = rng.integers(0, 120, 3)
        picture[:] = ground + rng.integers(0, 40, picture.shape)
        drawn = _places(rng, int(rng.integers(1, _MOST + 1)))
        codes = rng.integers(0, len(CLASSES), len(drawn))
        for (left, top, side), code in zip(drawn, codes, strict=True):
            inside = picture[top : top + side, left : left + side]
            inside[mask(CLASSES[code], side)] = rng.integers(150, 256, 3)
        edges = np.array([[left, top, left + side, top + side] for left, top, side in drawn]) / SIDE
        rows.append(np.column_stack([edges, codes]))
        main[number] = codes[max(range(len(drawn)), key=lambda place: drawn[place][2])]
    return pictures, stored(rows), main


def _places(rng: np.random.Generator, wanted: int) -> list[tuple[int, int, int]]:
    """(left, top, side) of at most `wanted` squares that do not meet."""
    found = list[tuple[int, int, int]]()
    for _ in range(_TRIES):
        side = int(rng.integers(_SMALLEST, _LARGEST + 1))
        left, top = (int(place) for place in rng.integers(0, SIDE - side + 1, 2))
        free = all(left + side < x or x + size < left or top + side < y or y + size < top for x, y, size in found)
        if free and len(found) < wanted:
            found.append((left, top, side))
    return found


def mask(name: str, side: int) -> np.ndarray:
    """(side, side): which pixels of its box a shape fills, up to all four edges."""
    y, x = np.mgrid[:side, :side]
    if name == "square":
        return np.ones((side, side), bool)
    if name == "circle":
        return np.asarray((2 * x - side + 1) ** 2 + (2 * y - side + 1) ** 2 <= side**2)
    return np.asarray(np.abs(2 * x - side + 1) <= y + 1)
