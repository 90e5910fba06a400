"""Texts: bytes as they are, or ids of tokens. A network's first layer gives each its numbers."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app.spec.data import WordPiece
from worker.training.data import tokens, words
from worker.training.data.scaling import Scaling

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from worker.training.data.inputs import Features, Trained

SCALED_AS_THE_SOURCE = True
FEATURES = "TF-IDF of words"

EMBEDDING = "token-embedding"
"""The layer that gives each token its numbers, by which its numbers and a tokenizer belong together."""


def fit(input: InputSchema, parts: Sequence[Trained]) -> Scaling:
    """A tokenizer, where the network sees tokens. Bytes need nothing; that of a fixed vocabulary comes with a model."""
    assert not isinstance(input.tokens, WordPiece), "a vocabulary is given, not fitted"
    return Scaling() if input.tokens is None else Scaling(tokenizer=tokens.fit(parts, input.tokens))


def notes(scaling: Scaling, input: InputSchema, parts: Sequence[Trained]) -> dict[str, str]:
    return (
        {}
        if scaling.tokenizer is None or input.tokens is None
        else tokens.notes(scaling.tokenizer, input.tokens, parts)
    )


def inherited(
    own: Scaling,
    input: InputSchema,
    theirs: Scaling,
    source: InputSchema,
    copied: Container[str],
) -> Scaling:
    """The source's tokenizer where the numbers of its tokens were copied: they mean nothing by another."""
    fixed = isinstance(input.tokens, WordPiece) or isinstance(source.tokens, WordPiece)
    if own.tokenizer is None or theirs.tokenizer is None or fixed or EMBEDDING not in copied:
        return own
    return replace(own, tokenizer=replace(theirs.tokenizer, length=own.tokenizer.length))


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
