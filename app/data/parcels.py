"""Synthetic parcels: the picture of a label with a mark, a weight and a country, and a note in words. To try rows of several inputs.

How a parcel goes follows from the mark, the weight and the note together; no part alone says it. Whole numbers throughout, so that every
machine makes the same.
"""

from __future__ import annotations

import numpy as np

from app.data.shapes import CLASSES as MARKS
from app.data.shapes import mask

SIDE = 24
COUNTRIES = ("Austria", "Chile", "Ghana", "Japan", "Norway")
SERVICES = ("bicycle", "van", "lorry")

_SMALLEST, _LARGEST = 8, 18
_GREETINGS = ("ring twice", "second floor", "leave it with the neighbour", "the blue door", "call when you are near")
_HASTE = ("it is urgent", "we need it today", "please hurry")
_CALM = ("no hurry", "any day will do", "whenever you come by")
_NO_WEIGHT = 15  # one parcel in so many was not weighed


def make(count: int) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray, np.ndarray]:
    """`count` parcels: pictures (count, SIDE, SIDE, 1) uint8; the weight in kg, NaN missing, and the number of the country, (count, 2)
    float32; notes; the number of the service, int32; the price, float32. The same every time."""
    rng = np.random.default_rng(2029)
    pictures = rng.integers(0, 90, (count, SIDE, SIDE, 1)).astype(np.uint8)
    table = np.zeros((count, 2), np.float32)
    notes, service, price = list[str](), np.zeros(count, np.int32), np.zeros(count, np.float32)
    for number, picture in enumerate(pictures):
        mark, side = int(rng.integers(len(MARKS))), int(rng.integers(_SMALLEST, _LARGEST + 1))
        left, top = (int(place) for place in rng.integers(0, SIDE - side + 1, 2))
        picture[top : top + side, left : left + side, 0][mask(MARKS[mark], side)] = rng.integers(150, 256)
        grams, country, haste = int(rng.integers(200, 30_000)), int(rng.integers(len(COUNTRIES))), int(rng.integers(2))
        words = (_HASTE if haste else _CALM)[int(rng.integers(3))], _GREETINGS[int(rng.integers(len(_GREETINGS)))]
        notes.append(", ".join(words if rng.integers(2) else words[::-1]))
        heavy = grams > 15_000
        service[number] = heavy + (MARKS[mark] == "square") if not (haste and MARKS[mark] == "circle") else 0
        price[number] = 4 + 2 * int(service[number]) + grams // 2000 + 3 * haste + country
        table[number] = np.nan if rng.integers(_NO_WEIGHT) == 0 else grams // 100 / 10, country
    return pictures, table, notes, service, price
