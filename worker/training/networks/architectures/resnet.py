"""conv1, norm1, relu1, then blocks `stageS-blockB-…` of two convolutions with BatchNorm, and the mean over all places.

A skip holds no numbers (the paper's option A): where a stage halves the maps, every second pixel is taken, and channels of zeros are
put beside.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.resnet import Spec


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, 64·width) of (batch, height, width, channels)."""
    x = layers.Conv2D(16 * spec.width, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.Activation("relu", name="relu1")(x)
    for stage in range(1, 4):
        for number in range(1, (spec.depth - 2) // 6 + 1):
            halves = stage > 1 and number == 1
            x = _block(x, 8 * 2**stage * spec.width, halves, f"stage{stage}-block{number}")
    return layers.GlobalAveragePooling2D(name="global-pool")(x)


def _block(x: Any, channels: int, halves: bool, name: str) -> Any:
    """relu(x + norm(conv(relu(norm(conv(x)))))) (figure 2 of the paper)."""
    skip = x
    if halves:
        skip = layers.MaxPooling2D(1, strides=2, name=f"{name}-subsampled")(x)
        before = (channels - x.shape[-1]) // 2
        # Channels stand last: to a layer that takes them to be first, they are the width.
        pads = ((0, 0), (before, channels - x.shape[-1] - before))
        skip = layers.ZeroPadding2D(pads, data_format="channels_first", name=f"{name}-widened")(skip)
    for number in (1, 2):
        strides = 2 if halves and number == 1 else 1
        x = layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False, name=f"{name}-conv{number}")(x)
        x = layers.BatchNormalization(name=f"{name}-norm{number}")(x)
        if number == 1:
            x = layers.Activation("relu", name=f"{name}-relu1")(x)
    x = layers.Add(name=f"{name}-add")([x, skip])
    return layers.Activation("relu", name=f"{name}-relu2")(x)
