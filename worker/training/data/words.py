"""Words of texts, weighed: TF-IDF (Salton and Buckley 1988) with scikit-learn's smoothing, in hashed columns (Weinberger et al. 2009)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from app.data.source import blocks

if TYPE_CHECKING:
    from app.data.source import Source

BUCKETS = 4096
"""Columns that words are hashed to: two words that meet in one count as the same."""

WORD = re.compile(r"\w\w+")


@dataclass(frozen=True)
class TfIdf:
    """Texts, rows of UTF-8 bytes, to unit vectors. `buckets`: the columns that any training row has; `idf`: how rare each is."""

    buckets: np.ndarray
    idf: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n, buckets) float32."""
        weighed = _counts(rows)[:, self.buckets] * self.idf
        length = np.sqrt((weighed**2).sum(axis=1, keepdims=True))
        return np.asarray(weighed / np.where(length > 0, length, 1), np.float32)


def fit(source: Source, train: np.ndarray) -> TfIdf:
    """Weights ln((1 + n)/(1 + rows that have the word)) + 1 of the words of the rows `train`."""
    having = np.zeros(BUCKETS, np.int64)
    for block in blocks(source, train):
        having += (_counts(block) > 0).sum(axis=0)
    buckets = np.flatnonzero(having)
    return TfIdf(buckets, (np.log((1 + len(train)) / (1 + having[buckets])) + 1).astype(np.float32))


def words(row: np.ndarray) -> list[str]:
    """The words of a text, in lower case: runs of at least two letters or digits."""
    return WORD.findall(row.tobytes().rstrip(b"\0").decode("utf-8", "replace").lower())


def _counts(rows: np.ndarray) -> np.ndarray:
    """(n, BUCKETS) float32."""
    texts: Sequence[list[str]] = [words(row) for row in rows]
    places = [number * BUCKETS + bucket(word) for number, text in enumerate(texts) for word in text]
    counts = np.bincount(np.array(places, np.int64), minlength=len(rows) * BUCKETS)
    return counts.reshape(len(rows), BUCKETS).astype(np.float32)


@lru_cache(2**16)
def bucket(word: str) -> int:
    return crc32(word.encode()) % BUCKETS
