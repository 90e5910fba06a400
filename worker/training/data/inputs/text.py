"""Texts: bytes as they are. A network's first layer gives each byte its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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


def features(input: InputSchema, trained: Trained) -> Features:  # noqa: ARG001
    return words.fit(*trained)
