"""Sources: rows by number, wherever they lie. Training asks for a few rows at a time and never holds them all.

An array in memory is a source as it is. A file's source reads the wanted rows by `preadv`: a memory map would do the same, but its
touched pages count as the process's own memory, so a data set larger than a job's limit would end the job.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SMALL_BYTES = 64 * 2**20
"""A file up to this size is read once and kept: that costs little, and a row then takes no call of the system."""

BLOCK_VALUES = 2**20


class Source(Protocol):
    """Rows by number: (n, …) of one type. Indexed by an array of row numbers, in any order and as often as one likes."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]: ...


class RowSource:
    """The base of the sources here. A subclass has `take`, which is given row numbers from 0 to n - 1."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """An array of numbers gives a copy of those rows; one number gives one row, a slice those that it names.

        Raises:
            IndexError: a number that no row has.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        wanted = np.asarray(rows, np.int64)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"row numbers from {wanted.min()} to {wanted.max()}: there are {len(self)} rows")
        taken = self.take(wanted.reshape(-1))
        return taken[0] if wanted.ndim == 0 else taken

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        """Refused: an array would hold all rows at once."""
        raise TypeError(f"{len(self)} rows are not made one array: ask for rows by their numbers")


class Stored(RowSource):
    """Rows in a file of ours, one after another from byte `offset` on. It stays open while the source lives."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0):
        self.shape, self.dtype, self._offset = shape, dtype, offset
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._whole: NDArray[Any] | None = None

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        if self.nbytes <= SMALL_BYTES:
            if self._whole is None:
                self._whole = self._read(np.arange(len(self)))
            return np.asarray(self._whole[rows])
        if len(rows) < 2 or (np.diff(rows) > 0).all():
            return self._read(rows)
        distinct, places = np.unique(rows, return_inverse=True)
        return self._read(distinct)[places]

    def head(self, n: int) -> NDArray[Any]:
        """The first `n` rows, or all there are. Of a small file, too, no others are read."""
        return self._read(np.arange(min(n, len(self))))

    def _read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """`rows` ascend; neighbours are read together."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not values.size:
            return values
        flat = values.reshape(-1).view(np.uint8).data
        size = prod(self.shape[1:]) * self.dtype.itemsize
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            self._fill(flat[start * size : end * size], self._offset + int(rows[start]) * size)
        return values

    def _fill(self, into: memoryview, at: int) -> None:
        done = 0
        while done < len(into):
            read = os.preadv(self._file, [into[done:]], at + done)
            if not read:
                raise OSError(f"the file ends {len(into) - done} bytes early")
            done += read


class SourceRows(RowSource):
    """Some rows of a source, under numbers of their own: number i is the row `rows[i]`."""

    def __init__(self, source: Source, rows: NDArray[np.int64]):
        self._source, self._rows = source, np.asarray(rows, np.int64)
        self.shape, self.dtype = (len(rows), *source.shape[1:]), source.dtype

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self._source[self._rows[rows]]


class Chain(RowSource):
    """Sources of rows of one shape, one after another. Rows have the type that an array of them all would have."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources])
        self.shape = (int(self._ends[-1]), *sources[0].shape[1:])
        self.dtype = np.result_type(*(source.dtype for source in sources))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        number = np.searchsorted(self._ends, rows, side="right")
        for place, source in enumerate(self._sources):
            here = number == place
            if here.any():
                values[here] = source[rows[here] - (int(self._ends[place]) - len(source))]
        return values


def blocks(source: Source, rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """`rows` of a source in order, at most `BLOCK_VALUES` numbers at a time and at least one row."""
    step = max(1, BLOCK_VALUES // max(1, prod(source.shape[1:])))
    for start in range(0, len(rows), step):
        yield source[rows[start : start + step]]
