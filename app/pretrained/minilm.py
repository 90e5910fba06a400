"""A sentence encoder in the form of BERT, from the file that sentence-transformers writes: the mean over a text's tokens.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"; Wang et al. 2020, "MiniLM: Deep
Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers". Widths and depth are read off the arrays; what
they do not tell is the number of heads.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from app.pretrained.drawing import Array, Drawing, Tensor
from app.pretrained.source import Built, Source

LENGTH = 128
"""Tokens of a text, as in training."""

HEADS = 12
EPSILON = 1e-12
PADDING = 0


def build(source: Source, _: tuple[int, int]) -> Built:
    """On the ids of tokens. Its features are of length 1, so that the product of two texts' is their cosine."""
    drawing = Drawing("tokens", (LENGTH,), integers=True)
    there = drawing.add("is_token", "ops.NotEqual", drawing.input, PADDING)
    seen = drawing.add("attention_mask", "ops.ExpandDims", there, axis=1)
    counted = drawing.add(
        "counted", "ops.ExpandDims", drawing.add("one_each", "ops.Cast", there, dtype="float32"), axis=-1
    )
    count = drawing.add("count", "ops.Maximum", drawing.add("tokens_there", "ops.Sum", counted, axis=1), 1.0)
    x = _embedded(drawing, source)
    blocks = 1 + max(int(found[1]) for name in source.names if (found := re.match(r"encoder\.layer\.(\d+)\.", name)))
    for number in range(blocks):
        x = _block(drawing, source, number, x, seen)
    total = drawing.add("total", "ops.Sum", drawing.add("without_padding", "Multiply", [x, counted]), axis=1)
    x = drawing.add("unit", "UnitNormalization", drawing.add("mean", "ops.Divide", total, count))
    source.leave(*(name for name in source.names if name.startswith("pooler.")), "embeddings.position_ids")
    return Built(drawing.graph("text", x), drawing.arrays)


def _embedded(drawing: Drawing, source: Source) -> Tensor:
    """Tokens and their places. A text is one sentence here, so the numbers of a first sentence are added to those of each place."""
    words = source.take("embeddings.word_embeddings.weight")
    places = source.take("embeddings.position_embeddings.weight")[:LENGTH]
    places = places + source.take("embeddings.token_type_embeddings.weight")[:1]
    ones = drawing.add("ones", "ops.OnesLike", drawing.input)
    number = drawing.add("place", "ops.Subtract", drawing.add("place_from_1", "ops.Cumsum", ones, axis=1), 1)
    added = [
        _table(drawing, "word_embedding", drawing.input, words),
        _table(drawing, "place_embedding", number, places),
    ]
    return _normed(drawing, source, "embedding_norm", "embeddings.LayerNorm", drawing.add("embedding", "Add", added))


def _table(drawing: Drawing, name: str, ids: Tensor, rows: Array) -> Tensor:
    return drawing.add(name, "Embedding", ids, arrays=[rows], input_dim=rows.shape[0], output_dim=rows.shape[1])


def _block(drawing: Drawing, source: Source, number: int, x: Tensor, seen: Tensor) -> Tensor:
    """Self-attention and two dense layers, each added to what it was given and normed after that."""
    ours, theirs = f"block{number}", f"encoder.layer.{number}"
    attended = _attention(drawing, source, f"{ours}_attention", f"{theirs}.attention", x, seen)
    x = drawing.add(f"{ours}_attention_add", "Add", [x, attended])
    x = _normed(drawing, source, f"{ours}_attention_norm", f"{theirs}.attention.output.LayerNorm", x)
    wide = _dense(drawing, source, f"{ours}_wide", f"{theirs}.intermediate.dense", x, activation="gelu")
    back = _dense(drawing, source, f"{ours}_back", f"{theirs}.output.dense", wide)
    x = drawing.add(f"{ours}_add", "Add", [x, back])
    return _normed(drawing, source, f"{ours}_norm", f"{theirs}.output.LayerNorm", x)


def _attention(drawing: Drawing, source: Source, ours: str, theirs: str, x: Tensor, seen: Tensor) -> Tensor:
    arrays: list[Array] = []
    for part in ("query", "key", "value"):
        kernel, bias = _kernel(source, f"{theirs}.self.{part}")
        arrays += [kernel.reshape(len(kernel), HEADS, -1), bias.reshape(HEADS, -1)]
    kernel, bias = _kernel(source, f"{theirs}.output.dense")
    arrays += [kernel.reshape(HEADS, -1, kernel.shape[-1]), bias]
    sizes = {"num_heads": HEADS, "key_dim": arrays[0].shape[-1]}
    return drawing.add(ours, "MultiHeadAttention", x, x, arrays=arrays, named={"attention_mask": seen}, **sizes)


def _dense(drawing: Drawing, source: Source, ours: str, theirs: str, x: Tensor, **config: Any) -> Tensor:
    kernel, bias = _kernel(source, theirs)
    return drawing.add(ours, "Dense", x, arrays=[kernel, bias], units=kernel.shape[-1], **config)


def _kernel(source: Source, name: str) -> tuple[Array, Array]:
    return np.ascontiguousarray(source.take(f"{name}.weight").T), source.take(f"{name}.bias")


def _normed(drawing: Drawing, source: Source, ours: str, theirs: str, x: Tensor) -> Tensor:
    arrays = [source.take(f"{theirs}.{part}") for part in ("weight", "bias")]
    return drawing.add(ours, "LayerNormalization", x, arrays=arrays, epsilon=EPSILON)
