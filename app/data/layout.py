"""What a network sees of a table's stored row: its prepared row.

A stored row has one number for each feature, a prepared row a place for

* a number as it is, a gap filled by a median of the training rows;
* each class of a category: 1 at the row's own, else 0. A category of more than `CAP` classes has a place for the `CAP` that are most
  frequent in the training rows, and one for all others together;
* after the first feature of a column that has missing values: 1 where the row lacks it.

Which places there are follows from the schema alone, so a network's shape is known before any row is. Without categories and missing
values a prepared row is the stored one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from app.spec.data import Feature

CAP = 32


def capped(feature: Feature) -> bool:
    """Whether a category has more classes than places: a word that no row has is one of the others then."""
    return feature.classes is not None and len(feature.classes) > CAP


def places(feature: Feature) -> int:
    """How many places a feature has, but for the one of its missing values."""
    if feature.classes is None:
        return 1
    return CAP + 1 if capped(feature) else len(feature.classes)


def width(features: Sequence[Feature]) -> int:
    """How many numbers a prepared row has."""
    columns = {feature.column for feature in features if feature.missing}
    return sum(map(places, features)) + len(columns)


def plain(features: Sequence[Feature]) -> bool:
    """Whether a prepared row is the stored row."""
    return not any(feature.missing or feature.classes is not None for feature in features)


@dataclass(frozen=True)
class Layout:
    """Where each number of a prepared row comes from.

    A stored row, the places of its codes, and a row that says what is missing stand one after another as one vector: `source` is a
    prepared number's place in it. Where `word` is not -1, the prepared number is 1 if that place holds it, else 0.
    """

    features: tuple[Feature, ...]

    @cached_property
    def _numbers(self) -> list[tuple[int, int]]:
        numbers, seen, n, codes = list[tuple[int, int]](), set[str](), len(self.features), 0
        for at, feature in enumerate(self.features):
            if feature.classes is None:
                numbers.append((at, -1))
            else:
                numbers += [(n + codes, place) for place in range(places(feature))]
                codes += 1
            if feature.missing and feature.column not in seen:
                seen.add(feature.column)
                numbers.append((n + len(self.codes) + at, -1))
        return numbers

    @cached_property
    def codes(self) -> list[int]:
        """The features that are codes of classes."""
        return [at for at, feature in enumerate(self.features) if feature.classes is not None]

    @cached_property
    def source(self) -> np.ndarray:
        return np.array([source for source, _ in self._numbers], np.int32)

    @cached_property
    def word(self) -> np.ndarray:
        return np.array([word for _, word in self._numbers], np.float32)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Of each code's part of a table of all codes: -1 for missing, each class, and for a capped category any other word."""
        sizes = [len(self.features[at].classes or ()) + 2 for at in self.codes]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
