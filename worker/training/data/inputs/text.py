"""Texts: bytes as they are. A network's first layer gives each byte its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.data import words
from worker.training.data.scaling import Scaling

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from worker.training.data.inputs import Features, Trained

SCALED_AS_THE_SOURCE = False
FEATURES = "TF-IDF of words"


def fit(input: InputSchema, parts: Sequence[Trained]) -> Scaling:  # noqa: ARG001
    return Scaling()


def layer(scaling: Scaling, input: InputSchema) -> Any:  # noqa: ARG001
    import keras

    return keras.layers.Identity(name="preprocessing", dtype="float32")


def scaling_of(layer: Any) -> Scaling:  # noqa: ARG001
    return Scaling()


def golden(input: InputSchema, scaling: Scaling, n: int, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Printable bytes of ASCII: one text fills its row, the others are shorter."""
    (length,) = input.shape
    ends = np.ceil(np.linspace(1, 0.2, n) * length)
    return np.where(np.arange(length) < ends[:, None], rng.integers(32, 127, (n, length)), 0).astype(np.uint8)


def features(input: InputSchema, trained: Trained) -> Features:  # noqa: ARG001
    return words.fit(*trained)
