"""A data set: inputs, wherever they lie, the columns that can be learnt, and a hash of every input row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from app.data.source import Source, blocks
from app.spec.data import Column, Schema

Hashes = NDArray[np.uint8]
Rows = NDArray[np.int64]
Values = NDArray[np.int32] | NDArray[np.int16] | NDArray[np.float32]

HASH_BYTES = 16

_HASHED_VALUES = 2**18


@dataclass(frozen=True)
class Table:
    """A data set's rows.

    Attributes:
        inputs: (n, *schema.input.shape), uint8, int16 or float32, finite but for the missing values of a table (NaN);
            asked for by
            row numbers, see `app.data.source`.
        columns: by name; `category` int32 (n,), -1 missing; `number` float32 (n, *shape), NaN missing; `labels` float32
            (n, classes), NaN missing; `tags` int16 (n, bytes), -1 where no tag is; `boxes` float32 (n, most, 5), NaN
            throughout missing.
        hashes: (n, 16) uint8, see `row_hashes`.
        schema: what all of this is.
    """

    inputs: Source
    columns: dict[str, Values]
    hashes: Hashes
    schema: Schema

    def __len__(self) -> int:
        return len(self.inputs)

    def labelled(self, column: str) -> NDArray[np.bool_]:
        """Which rows have a value in `column`; of `labels` and vectors, at least one."""
        return labelled(self.columns[column])


def labelled(values: Values) -> NDArray[np.bool_]:
    """Which of a column's values are there: no -1 of a category, not -1 or NaN throughout."""
    if np.issubdtype(values.dtype, np.integer):
        return np.asarray((values >= 0).any(axis=tuple(range(1, values.ndim))))
    return np.asarray(~np.isnan(values).all(axis=tuple(range(1, values.ndim))))


def has_classes(values: np.ndarray) -> bool:
    """Whether each row has one class: whole numbers, one a row."""
    return values.ndim == 1 and np.issubdtype(values.dtype, np.integer)


def row_hashes(inputs: np.ndarray, scale: float | None = None) -> Hashes:
    """One BLAKE2b-128 a row, of its shape and values, labels excluded: rows that a model sees alike hash alike, however stored.

    Pictures are compared in steps of 1/65,535 of `scale` (null: 255 for integers, 1 for floats), so that the same one as bytes and
    as numbers in 0…1 is one picture; rows of a table as float32, all that is missing alike.
    """
    unit = 65535 / (scale or (1.0 if inputs.dtype.kind == "f" else 255.0))
    start = blake2b(f"{inputs.shape[1:]} ".encode(), digest_size=HASH_BYTES)
    digests = bytearray()
    exact = inputs.ndim > 2 and inputs.dtype == np.uint8 and unit == 257  # the common case, without a detour by floats
    step = max(1, _HASHED_VALUES // max(1, inputs[:1].size))
    for first in range(0, len(inputs), step):
        some = inputs[first : first + step]  # a copy of the whole may not fit
        if exact:
            seen = some.astype("<i8") * 257
        elif inputs.ndim > 2:
            seen = np.rint(some.astype(np.float64) * unit).astype("<i8")
        else:
            seen = some.astype("<f4") + np.float32(0)  # since -0.0 equals 0.0
            seen[np.isnan(seen)] = np.nan  # of which there are many
        whole = np.ascontiguousarray(seen).reshape(-1).view(np.uint8).data
        size = len(whole) // max(1, len(some))
        for at in range(0, len(whole), size) if size else [0] * len(some):
            digest = start.copy()
            digest.update(whole[at : at + size])
            digests += digest.digest()
    return np.frombuffer(bytes(digests), np.uint8).reshape(len(inputs), HASH_BYTES)


def among(hashes: Hashes, others: Hashes) -> NDArray[np.bool_]:
    """Which of `hashes` occur in `others` too: the rows of one data set that another already holds."""
    there = np.zeros(len(hashes), bool)
    if not len(others):
        return there
    halves = np.unique(_halves(others)[:, 0])
    for start in range(0, len(hashes), _HASHED_VALUES):  # a copy of the whole may not fit
        half = _halves(hashes[start : start + _HASHED_VALUES])[:, 0]
        place = np.minimum(np.searchsorted(halves, half), len(halves) - 1)
        there[start : start + len(half)] = halves[place] == half
    likely = np.flatnonzero(there)  # of two different hashes half could be the same
    numbers = same_inputs(np.concatenate([others, hashes[likely]]))
    known = np.zeros(len(numbers), bool)
    known[numbers[: len(others)]] = True
    there[likely] = known[numbers[len(others) :]]
    return there


def same_inputs(hashes: Hashes) -> NDArray[np.int64]:
    """A number for each row, equal for rows of equal inputs: (n,) int64, counting up from 0 in order of first appearance."""
    if not len(hashes):
        return np.zeros(0, np.int64)
    high, low = _halves(hashes).T
    order = np.lexsort((low, high))  # which leaves equal ones in the order of the rows
    high, low = high[order], low[order]
    begins = np.r_[True, (high[1:] != high[:-1]) | (low[1:] != low[:-1])]
    firsts = order[begins]
    numbers = np.empty(len(firsts), np.int64)
    numbers[np.argsort(firsts)] = np.arange(len(firsts))
    same = np.empty(len(hashes), np.int64)
    same[order] = numbers[np.cumsum(begins) - 1]
    return same


def hash_ranks(hashes: Hashes) -> NDArray[np.int64]:
    """The place of each hash among the different ones, by their bytes: (n,) int64, equal for rows of equal inputs."""
    keys = _keys(hashes)
    order = np.argsort(keys)
    places = np.zeros(len(keys), np.int64)
    for start in range(1, len(keys), _HASHED_VALUES):  # a sorted copy of the whole may not fit
        block = keys[order[start - 1 : start + _HASHED_VALUES]]
        places[start : start + _HASHED_VALUES] = block[1:] != block[:-1]
    np.cumsum(places, out=places)
    ranks = np.empty_like(places)
    ranks[order] = places
    return ranks


def distinct_hashes(parts: Sequence[tuple[Hashes, Rows | None]]) -> Hashes:
    """Each hash of all `parts` once, by their bytes: (n, 16). A part: hashes, and the numbers of those that count (None: all).

    They are gathered, sorted and thinned out in one array, since of millions each copy counts.
    """
    whole = np.empty((sum(len(hashes if rows is None else rows) for hashes, rows in parts), HASH_BYTES), np.uint8)
    end = 0
    for hashes, rows in parts:
        for block in [hashes] if rows is None else blocks(hashes, rows):
            whole[end : end + len(block)] = block
            end += len(block)
    keys = _keys(whole)
    keys.sort()
    end = min(1, len(keys))
    for start in range(1, len(keys), _HASHED_VALUES):
        block = keys[start : start + _HASHED_VALUES]
        new = block[block != keys[start - 1 : start - 1 + len(block)]]
        keys[end : end + len(new)] = new
        end += len(new)
    return whole[:end]


def describe(name: str, values: np.ndarray, classes: Sequence[str] | None = None, *, labels: bool = False) -> Column:
    """The schema of a column stored as `Table` says: its type, classes with their counts, range and missing values."""
    missing = int((~labelled(values)).sum())
    if labels:
        counts = [int(count) for count in np.nansum(values, axis=0)]
        return Column(
            name=name,
            type="labels",
            classes=list(classes or ()),
            shape=[values.shape[1]],
            missing=missing,
            counts=counts,
        )
    if classes is not None and values.ndim == 3:
        codes = values[..., 4]
        counts = [int(count) for count in np.bincount(codes[codes >= 0].astype(np.int64), minlength=len(classes))]
        shape = list(values.shape[1:])
        return Column(name=name, type="boxes", classes=list(classes), shape=shape, missing=missing, counts=counts)
    if classes is not None:
        counts = [int(count) for count in np.bincount(values[values >= 0], minlength=len(classes))]
        return Column(name=name, type="category", classes=list(classes), missing=missing, counts=counts)
    present = values[~np.isnan(values)]
    return Column(
        name=name,
        type="number",
        shape=[int(size) for size in values.shape[1:]],
        missing=missing,
        minimum=float(present.min()) if present.size else None,
        maximum=float(present.max()) if present.size else None,
    )


def _keys(hashes: Hashes) -> NDArray[np.bytes_]:
    """(n,), in the same memory where the rows lie one after another. All are equally long, so they compare as their bytes do."""
    return np.ascontiguousarray(hashes).view(f"S{HASH_BYTES}").reshape(-1)


def _halves(hashes: Hashes) -> NDArray[np.uint64]:
    """(n, 2)"""
    return np.ascontiguousarray(hashes).view(np.uint64)
