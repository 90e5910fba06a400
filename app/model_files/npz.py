"""Writes arrays to a file, as an npz that can be mapped: nothing in it is packed, and the same arrays are the same bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Writer:
    """Takes one array after another, by name. `shapes`: of those that it took."""

    def __init__(self, target: IO[bytes]):
        self._target = target
        self._zip = zipfile.ZipFile(target, "w", zipfile.ZIP_STORED)
        self.shapes: dict[str, list[int]] = {}

    def __call__(self, name: str, values: Array) -> None:
        with self._zip.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.ascontiguousarray(values).reshape(values.shape), allow_pickle=False)
        self.shapes[name] = list(values.shape)

    def close(self) -> None:
        self._zip.close()
        self._target.flush()


def write(target: IO[bytes], arrays: Iterable[tuple[str, Array]]) -> None:
    writer = Writer(target)
    for name, values in arrays:
        writer(name, values)
    writer.close()
