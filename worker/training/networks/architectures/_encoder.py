"""A block of a transformer encoder (Vaswani et al. 2017), its norms before attention and dense layers (Xiong et al. 2020)."""

from __future__ import annotations

from typing import Any

from keras import layers

EPSILON = 1e-6


def encoder(spec: Any, x: Any, name: str, causal: bool = False) -> Any:
    """(batch, places, dim) of the same. `spec` has dim, heads, mlp_ratio, dropout. `causal`: no place sees a later one."""
    y = layers.LayerNormalization(epsilon=EPSILON, name=f"{name}-norm1")(x)
    y = layers.MultiHeadAttention(spec.heads, spec.dim // spec.heads, name=f"{name}-attention")(
        y, y, use_causal_mask=causal
    )
    x = layers.Add(name=f"{name}-add1")([x, _dropped(spec, y, f"{name}-dropout1")])
    y = layers.LayerNormalization(epsilon=EPSILON, name=f"{name}-norm2")(x)
    y = layers.Dense(spec.mlp_ratio * spec.dim, activation="gelu", name=f"{name}-dense1")(y)
    y = layers.Dense(spec.dim, name=f"{name}-dense2")(_dropped(spec, y, f"{name}-dropout2"))
    return layers.Add(name=f"{name}-add2")([x, _dropped(spec, y, f"{name}-dropout3")])


def _dropped(spec: Any, x: Any, name: str) -> Any:
    return layers.Dropout(spec.dropout, name=name)(x) if spec.dropout else x
