"""Texts: bytes as they are, or ids of tokens. A network's first layer gives each its numbers."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
    """A tokenizer, where the network sees tokens. Bytes need nothing."""
    return Scaling() if input.tokens is None else Scaling(tokenizer=tokens.fit(parts, input.tokens))


def notes(scaling: Scaling, input: InputSchema, parts: Sequence[Trained]) -> dict[str, str]:
    return (
        {}
        if scaling.tokenizer is None or input.tokens is None
        else tokens.notes(scaling.tokenizer, input.tokens, parts)
    )


def inherited(own: Scaling, source: Scaling, copied: Container[str]) -> Scaling:
    """The source's tokenizer where the numbers of its tokens were copied: they mean nothing by another."""
    if own.tokenizer is None or source.tokenizer is None or EMBEDDING not in copied:
        return own
    return replace(own, tokenizer=replace(source.tokenizer, length=own.tokenizer.length))


def layer(scaling: Scaling, input: InputSchema) -> Any:  # noqa: ARG001
    import keras

    return keras.layers.Identity(name="preprocessing", dtype="float32")


def scaling_of(layer: Any) -> Scaling:  # noqa: ARG001
    return Scaling()


def features(input: InputSchema, trained: Trained) -> Features:  # noqa: ARG001
    return words.fit(*trained)
