"""conv1, pool1, conv2, pool2, … convN (no pooling after the last), flatten, dense1; with BatchNorm each convolution's ReLU apart."""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.cnn import KERNEL, POOL, Spec


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dense) of (batch, height, width, channels)."""
    x = inputs
    for number, width in enumerate(spec.filters, 1):
        if spec.batch_norm:
            x = layers.Conv2D(width, KERNEL, use_bias=False, name=f"conv{number}")(x)
            x = layers.BatchNormalization(name=f"norm{number}")(x)
            x = layers.Activation("relu", name=f"relu{number}")(x)
        else:
            x = layers.Conv2D(width, KERNEL, activation="relu", name=f"conv{number}")(x)
        if number < len(spec.filters):
            x = layers.MaxPooling2D(POOL, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(spec.dense, activation="relu", name="dense1")(x)
    return layers.Dropout(spec.dropout, name="dropout1")(x) if spec.dropout else x
