"""A table's rows as a network sees them: gaps filled, categories laid out, as `app.data.layout` says. Fitted on the rows that train.

NumPy does it for batches; `symbolic` is the same in stock layers and operations of Keras, for a kept model, and `of_model` reads it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data import layout
from app.data.layout import Layout
from app.data.source import blocks

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.data import Feature, InputSchema

Trained = tuple["Source", np.ndarray]
"""A table's rows, and the numbers of those that train."""

NOWHERE = -1
"""The place of a code that has none: a missing one, and a class that no training row has."""

MOST_BYTES = 2**28
"""Of the numbers of which medians are found at a time."""

GAPS, PLACES = "preprocessing_gaps", "preprocessing_places"
"""The layers of a kept model that hold medians and places."""


@dataclass(frozen=True)
class Preparation:
    """`medians`: what fills each feature's gaps, 0 where there are none. `places`: one after another, of each category: of a missing code,
    of each class, and of a word that no class is."""

    features: tuple[Feature, ...]
    medians: tuple[float, ...]
    places: tuple[int, ...]

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.features)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.medians, np.float32), np.array(self.places, np.float32)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n, features) stored rows to (n, width) float32."""
        of, rows = self.layout, rows.astype(np.float32)
        missing, (medians, of_code) = np.isnan(rows), self._arrays
        filled = np.where(missing, medians, rows)
        codes = np.where(missing, np.float32(-1), rows)[:, of.codes].astype(np.int64)
        places = of_code[codes + 1 + of.offsets[:-1]]
        taken = np.concatenate([filled, places, missing.astype(np.float32)], axis=1)[:, of.source]
        prepared: np.ndarray = np.where(of.word >= 0, (taken == of.word).astype(np.float32), taken)
        return prepared

    def of_raw(self, values: np.ndarray) -> np.ndarray:
        """(width,) values of prepared numbers to (features,): each feature's own, 0 for a code."""
        raw = np.zeros(len(self.features), np.float32)
        own = self.layout.source < len(self.features)
        raw[self.layout.source[own]] = values[own]
        return raw


def fit(input: InputSchema, parts: Sequence[Trained]) -> Preparation | None:
    """The medians and classes of all rows that train; None where rows need no preparation."""
    if layout.plain(input.features):
        return None
    features = tuple(input.features)
    gaps = [at for at, feature in enumerate(features) if feature.missing and feature.classes is None]
    rows = max(1, sum(len(numbers) for _, numbers in parts))
    step = max(1, MOST_BYTES // (4 * rows))
    medians = np.zeros(len(features), np.float32)
    for start in range(0, len(gaps), step):
        some = gaps[start : start + step]
        medians[some] = _medians(np.concatenate([block[:, some] for block in _blocks(parts)]))
    codes = [at for at, feature in enumerate(features) if feature.classes is not None]
    counts = {at: np.zeros(len(features[at].classes or ()), np.int64) for at in codes}
    for block in _blocks(parts) if codes else ():
        for at in codes:
            there = block[:, at][~np.isnan(block[:, at])].astype(np.int64)
            counts[at] += np.bincount(there, minlength=len(counts[at]))
    places = [place for at in codes for place in _places(features[at], counts[at])]
    return Preparation(features, tuple(medians.tolist()), tuple(places))


def _blocks(parts: Sequence[Trained]) -> Iterator[np.ndarray]:
    return (block for source, rows in parts for block in blocks(source, rows))


def _medians(values: np.ndarray) -> np.ndarray:
    """The median of each column of (n, features), without what is missing; 0 where all is."""
    return np.array(
        [np.median(there.astype(np.float64)) if len(there := column[~np.isnan(column)]) else 0 for column in values.T],
        np.float32,
    )


def _places(feature: Feature, counts: np.ndarray) -> list[int]:
    """The place of a missing code, of each class and of an unknown word, by how many training rows have each class."""
    if not layout.capped(feature):
        return [NOWHERE, *(code if count else NOWHERE for code, count in enumerate(counts.tolist())), NOWHERE]
    frequent = np.sort(np.argsort(-counts, kind="stable")[: layout.CAP])
    frequent = frequent[counts[frequent] > 0]
    places = np.full(len(counts), layout.CAP)
    places[frequent] = np.arange(len(frequent))
    return [NOWHERE, *places.tolist(), layout.CAP]


def symbolic(x: Any, preparation: Preparation) -> Any:
    """A symbolic (batch, features) tensor of stored rows as (batch, width)."""
    from keras import layers, ops

    of = preparation.layout
    plain: dict[str, Any] = {"dtype": "float32"}
    missing = ops.isnan(x)
    lacks = ops.cast(missing, "float32")
    there = ops.where(missing, 0.0, x)
    fill = layers.Rescaling(list(preparation.medians), 0.0, name=GAPS, **plain)
    filled = layers.Add(name="preprocessing_filled", **plain)([there, fill(lacks)])
    parts = [filled]
    if of.codes:
        codes = ops.take(ops.where(missing, -1.0, x), of.codes, axis=1)
        shift = layers.Rescaling(1.0, (of.offsets[:-1] + 1.0).tolist(), name="preprocessing_codes", **plain)
        table = layers.Embedding(int(of.offsets[-1]), 1, trainable=False, name=PLACES, **plain)
        places = table(ops.cast(shift(codes), "int32"))
        table.set_weights([np.array(preparation.places, np.float32)[:, None]])
        parts.append(ops.squeeze(places, -1))
    taken = ops.take(ops.concatenate([*parts, lacks], axis=1), of.source.tolist(), axis=1)
    if not of.codes:
        return taken
    is_word = of.word[None] >= 0
    return ops.where(is_word, ops.cast(ops.equal(taken, of.word[None]), "float32"), taken)


def of_model(model: Any, features: Sequence[Feature]) -> Preparation | None:
    """The preparation that stands in a kept model; None where rows need none."""
    if layout.plain(features):
        return None
    medians = np.ravel(model.get_layer(GAPS).get_config()["scale"])
    coded = any(feature.classes is not None for feature in features)
    places = np.ravel(model.get_layer(PLACES).get_weights()[0]) if coded else np.zeros(0)
    return Preparation(tuple(features), tuple(map(float, medians)), tuple(int(place) for place in places))
