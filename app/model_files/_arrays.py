"""What readers of arrays have in common."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from app.model_files.limits import ModelLimits
from app.spec.faults import Fault, Invalid

Array = np.ndarray[Any, np.dtype[Any]]
Sink = Callable[[str, Array], None]
"""Takes an array and its name."""

MOST_ARRAYS = 20_000


@dataclass
class Budget:
    """How much may still be read."""

    bytes: int = ModelLimits.array_bytes
    arrays: int = MOST_ARRAYS

    def take(self, size: int) -> None:
        """Raises Invalid: there is not so much left."""
        self.bytes -= size
        self.arrays -= 1
        if self.bytes < 0 or self.arrays < 0:
            raise Invalid([Fault("", "the arrays are more than a model may have", "send a smaller model", "too_large")])


class Arrays:
    """Writes arrays into an npz that can be mapped: nothing in it is packed. The same arrays are the same bytes."""

    def __init__(self, target: IO[bytes]):
        self._zip = zipfile.ZipFile(target, "w", zipfile.ZIP_STORED)
        self.shapes: dict[str, list[int]] = {}

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __call__(self, name: str, values: Array) -> None:
        with self._zip.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values, allow_pickle=False)
        self.shapes[name] = list(values.shape)


def plain(values: Array, target: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):  # a float64 may be beyond float32
        return values.astype(target)


def of_bfloat16(values: Array) -> Array:
    """Floats of which the first 16 bits are given."""
    return (values.astype(np.uint32) << 16).view(np.float32)
