"""conv1, then blocks `groupG-blockB-…` with norm and ReLU before each convolution, and the mean over all places.

A skip is the block's input, or, where width or size change, a 1×1 convolution of its first norm and ReLU.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.wrn import Spec


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, 64·widen) of (batch, height, width, channels)."""
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv1")(inputs)
    for group in range(1, 4):
        for number in range(1, (spec.depth - 4) // 6 + 1):
            strides = 2 if group > 1 and number == 1 else 1
            x = _block(x, 8 * 2**group * spec.widen, strides, spec.dropout, f"group{group}-block{number}")
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.Activation("relu", name="relu1")(x)
    return layers.GlobalAveragePooling2D(name="global-pool")(x)


def _block(x: Any, channels: int, strides: int, dropout: float, name: str) -> Any:
    """The paper's basic-wide block with dropout (figure 1 d): B(3, 3)."""
    active = layers.BatchNormalization(name=f"{name}-norm1")(x)
    active = layers.Activation("relu", name=f"{name}-relu1")(active)
    skip = x
    if x.shape[-1] != channels or strides > 1:
        skip = layers.Conv2D(channels, 1, strides=strides, use_bias=False, name=f"{name}-skip")(active)
    x = layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False, name=f"{name}-conv1")(active)
    x = layers.BatchNormalization(name=f"{name}-norm2")(x)
    x = layers.Activation("relu", name=f"{name}-relu2")(x)
    if dropout:
        x = layers.Dropout(dropout, name=f"{name}-dropout")(x)
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}-conv2")(x)
    return layers.Add(name=f"{name}-add")([x, skip])
