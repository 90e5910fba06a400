"""RandAugment (Cubuk et al., CVPR Workshops 2020): for each picture some changes, drawn from one list, all of one magnitude. NumPy only.

Of the paper's fourteen there are neither equalisation nor automatic contrast, which take a histogram of each picture, nor
sharpness. Changes of place come first and are sampled in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from app.spec.training import RandAugment

CHANGES = (
    "nothing", "rotation", "shear_y", "shear_x", "shift_y", "shift_x", "brightness", "contrast", "saturation", "posterise", "solarise",
)  # fmt: skip
_DEGREES, _SHARE, _FACTOR, _BITS = 30, 0.3, 0.9, 4
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Drawn:
    """What was drawn for a batch of `n` pictures: `change` (ops, n), numbers in CHANGES, and `amount` (ops, n), the magnitude with a
    sign."""

    def __init__(self, rng: np.random.Generator, n: int, by: RandAugment):
        self.change = rng.integers(len(CHANGES), size=(by.ops, n))
        self.amount = np.where(rng.random((by.ops, n)) < 0.5, -1.0, 1.0) * by.magnitude

    def steps(self, height: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each op the maps (n, 2, 2) and the shifts (n, 2) in pixels of (y, x); of pictures that are changed otherwise, none."""
        for change, amount in zip(self.change, self.amount, strict=True):
            of = {name: np.where(change == number, amount, 0.0) for number, name in enumerate(CHANGES)}
            turn = np.deg2rad(_DEGREES * of["rotation"])
            step = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(-1, 2, 2)
            step[:, 0, 1] += _SHARE * of["shear_y"]
            step[:, 1, 0] += _SHARE * of["shear_x"]
            yield step, _SHARE * np.stack([of["shift_y"] * height, of["shift_x"] * width], axis=1)

    def recoloured(self, pictures: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Pictures (n, h, w, c) float32 within 0 and `scale` after their changes of colour, in order."""
        rows = np.array(pictures, np.float32)
        for change, amount in zip(self.change, self.amount, strict=True):
            for number, name in enumerate(CHANGES):
                these = np.flatnonzero(change == number)
                if len(these) and name in _COLOURS:
                    factor = amount[these].astype(np.float32).reshape(-1, 1, 1, 1)
                    rows[these] = np.clip(_COLOURS[name](rows[these], factor, scale), 0, scale)
        return rows


def _brighter(rows: np.ndarray, amount: np.ndarray, scale: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return np.asarray(rows * (1 + _FACTOR * amount))


def _contrast(rows: np.ndarray, amount: np.ndarray, scale: np.ndarray) -> np.ndarray:  # noqa: ARG001
    mean = rows.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(mean + (rows - mean) * (1 + _FACTOR * amount))


def _saturated(rows: np.ndarray, amount: np.ndarray, scale: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Grey pictures stay as they are."""
    if rows.shape[-1] != len(_GREY):
        return rows
    grey = (rows @ _GREY)[..., None]
    return np.asarray(grey + (rows - grey) * (1 + _FACTOR * amount))


def _posterised(rows: np.ndarray, amount: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Fewer levels: of eight bits up to four are dropped."""
    levels = 2.0 ** (8 - np.round(_BITS * np.abs(amount)))
    return np.asarray(np.floor(np.minimum(rows / scale * levels, levels - 1)) / levels * scale, np.float32)


def _solarised(rows: np.ndarray, amount: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What is brighter than a threshold is inverted."""
    return np.where(rows >= (1 - np.abs(amount)) * scale, scale - rows, rows)


_COLOURS = {
    "brightness": _brighter,
    "contrast": _contrast,
    "saturation": _saturated,
    "posterise": _posterised,
    "solarise": _solarised,
}
