"""Patches, each projected and given numbers of its own place, then `encoderN-…`: attention and two dense layers, each beside a skip.

The norm stands before them (Dosovitskiy et al. 2021, equations 1 to 4). What is learnt of a place begins at 0 and is the projection's
bias, so that both are one layer.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.vit_tiny import Spec

EPSILON = 1e-6


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dim) of (batch, height, width, channels)."""
    x = _patches(spec, inputs)
    for number in range(1, spec.depth + 1):
        x = encoder(spec, x, f"encoder{number}")
    x = layers.LayerNormalization(epsilon=EPSILON, name="encoder-norm")(x)
    return layers.GlobalAveragePooling1D(name="global-pool")(x)


def _patches(spec: Spec, inputs: Any) -> Any:
    """(batch, patches, dim): row by row, each patch flat, times E, plus what is learnt of its place."""
    height, width, channels = inputs.shape[1:]
    rows, columns = height // spec.patch, width // spec.patch
    flat = spec.patch * channels
    x = layers.Reshape((rows, spec.patch, columns, flat), name="patch-rows")(inputs)
    x = layers.Permute((1, 3, 2, 4), name="patch-order")(x)
    x = layers.Reshape((rows * columns, spec.patch * flat), name="patch-flat")(x)
    shape = (rows * columns, spec.dim)
    return layers.EinsumDense("npc,cd->npd", shape, bias_axes="pd", name="patch-embedding")(x)


def encoder(spec: Any, x: Any, name: str) -> Any:
    """(batch, places, dim) of the same. `spec` has dim, heads, mlp_ratio, dropout."""
    y = layers.LayerNormalization(epsilon=EPSILON, name=f"{name}-norm1")(x)
    y = layers.MultiHeadAttention(spec.heads, spec.dim // spec.heads, name=f"{name}-attention")(y, y)
    x = layers.Add(name=f"{name}-add1")([x, _dropped(spec, y, f"{name}-dropout1")])
    y = layers.LayerNormalization(epsilon=EPSILON, name=f"{name}-norm2")(x)
    y = layers.Dense(spec.mlp_ratio * spec.dim, activation="gelu", name=f"{name}-dense1")(y)
    y = layers.Dense(spec.dim, name=f"{name}-dense2")(_dropped(spec, y, f"{name}-dropout2"))
    return layers.Add(name=f"{name}-add2")([x, _dropped(spec, y, f"{name}-dropout3")])


def _dropped(spec: Any, x: Any, name: str) -> Any:
    return layers.Dropout(spec.dropout, name=name)(x) if spec.dropout else x
