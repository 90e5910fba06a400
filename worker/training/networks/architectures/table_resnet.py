"""table-first, then `blockN-…`: a norm and two dense layers beside a skip; a last norm and its activation."""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.table_resnet import Spec


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dim) of (batch, columns)."""
    x = layers.Dense(spec.dim, name="table-first")(inputs)
    for number in range(1, spec.depth + 1):
        name = f"block{number}"
        y = layers.BatchNormalization(name=f"{name}-norm")(x)
        y = layers.Dense(spec.ratio * spec.dim, activation="relu", name=f"{name}-dense1")(y)
        if spec.dropout:
            y = layers.Dropout(spec.dropout, name=f"{name}-dropout")(y)
        x = layers.Add(name=f"{name}-add")([x, layers.Dense(spec.dim, name=f"{name}-dense2")(y)])
    x = layers.BatchNormalization(name="table-norm")(x)
    return layers.Activation("relu", name="table-activation")(x)
