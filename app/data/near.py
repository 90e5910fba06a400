"""Rows that nearly equal each other: a photograph saved twice, a text with a word changed. `row_hashes` finds those that are just equal.

An input kind that knows what nearly equal means has a *fingerprint* of each row, (n, k), in whose *bands* nearly equal rows meet: only
rows with a band in common are compared (Leskovec, Rajaraman and Ullman 2020, chapter 3), never all with all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Of the fingerprints of all kinds: those that were kept under another one are not used."""

MOST_PAIRS = 2**27
"""Pairs that are compared at most; beyond it as many test rows are left out as it takes."""

AT_ONCE = 2**20

Nearly = Callable[[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Fingerprints of both sides, and of each pair its place in the one and in the other, to whether the two nearly equal each other, (m,)."""


@dataclass(frozen=True)
class Found:
    """`twin`: of each row that was compared, the place of a row of the other side that it nearly equals, else -1."""

    compared: NDArray[np.int64]
    twin: NDArray[np.int64]


def across(
    ours: NDArray[Any], theirs: NDArray[Any], bands: Callable[[NDArray[Any]], NDArray[np.uint64]], nearly: Nearly
) -> Found:
    """For each of the fingerprints `ours`, one of `theirs` that it nearly equals. Equal fingerprints are compared once."""
    other, place = np.unique(theirs, axis=0, return_index=True)
    own, inverse = np.unique(ours, axis=0, return_inverse=True)
    own_bands, other_bands = bands(own), bands(other)
    compared = np.arange(len(own))
    pairs = sum(int(meeting.sum()) for _, _, _, meeting in _meetings(own_bands, other_bands))
    if pairs > MOST_PAIRS:
        compared = compared[np.arange(max(1, len(own) * MOST_PAIRS // pairs)) * pairs // MOST_PAIRS]
    twin = np.full(len(own), -1, np.int64)
    for order, first, rows, meeting in _meetings(own_bands[compared], other_bands):
        for some in _pieces(meeting):
            left = np.repeat(rows[some], meeting[some])
            start = np.repeat(first[some] - np.cumsum(meeting[some]) + meeting[some], meeting[some])
            right = order[start + np.arange(len(left))]
            near = nearly(own, other, compared[left], right)
            twin[compared[left[near]]] = place[right[near]]
    chosen = np.isin(inverse, compared)
    return Found(np.flatnonzero(chosen), twin[inverse[chosen]])


def _meetings(
    own: NDArray[np.uint64], other: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Of each band: an order of the others; of each of our rows that meets any, where in it they begin, its number, how many they are."""
    for band in range(own.shape[1]):
        order = np.argsort(other[:, band], kind="stable")
        sorted_ = other[order, band]
        first = np.searchsorted(sorted_, own[:, band], "left")
        meeting = np.searchsorted(sorted_, own[:, band], "right") - first
        rows = np.flatnonzero(meeting)
        yield order, first[rows], rows, meeting[rows]


def _pieces(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of about `AT_ONCE` pairs, at least one row each."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        base = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, base + AT_ONCE, "right")))
        yield slice(start, end)
        start = end
