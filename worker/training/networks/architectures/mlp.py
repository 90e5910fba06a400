"""dense1, dense2, …; with BatchNorm each one's activation apart."""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.mlp import Spec


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, the last of `units`) of (batch, columns)."""
    x = inputs
    for number, width in enumerate(spec.units, 1):
        if spec.batch_norm:
            x = layers.Dense(width, name=f"dense{number}")(x)
            x = layers.BatchNormalization(name=f"norm{number}")(x)
            x = layers.Activation(spec.activation, name=f"activation{number}")(x)
        else:
            x = layers.Dense(width, activation=spec.activation, name=f"dense{number}")(x)
        if spec.dropout:
            x = layers.Dropout(spec.dropout, name=f"dropout{number}")(x)
    return x
