"""MobileNetV2 as keras.applications builds it, from an h5 file: the trunk up to its pooled features.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks". Layers are called as in keras.applications.
"""

from __future__ import annotations

import re

from app.pretrained.drawing import NORM_MOMENTUM, Drawing, Tensor
from app.pretrained.source import Built, Source

STRIDED = frozenset({1, 3, 6, 13})
"""Blocks that halve the sides."""


def build(source: Source, size: tuple[int, int]) -> Built:
    """On pixels of -1 to 1. Of the file, the network within it that is called mobilenetv2_…; a head on it is left behind."""
    (prefix,) = {found[0] for name in source.names if (found := re.match("mobilenetv2_[^/]+/", name))}
    source.leave(*(name for name in source.names if not name.startswith(prefix)))
    layers = _Layers(source, prefix)
    drawing = Drawing("image", (*size, 3))
    x = layers.conv(drawing, "Conv1", drawing.input, stride=2)
    x = layers.normed(drawing, "bn_Conv1", "Conv1_relu", x)
    x = layers.block(drawing, "expanded_conv_", x, stride=1, expand=False)
    number = 1
    while layers.has(f"block_{number}_expand"):
        x = layers.block(drawing, f"block_{number}_", x, stride=2 if number in STRIDED else 1, expand=True)
        number += 1
    x = layers.normed(drawing, "Conv_1_bn", "out_relu", layers.conv(drawing, "Conv_1", x))
    x = drawing.add("global_average_pooling2d", "GlobalAveragePooling2D", x)
    return Built(drawing.graph("image", x), drawing.arrays)


class _Layers:
    """The layers of the network in the file."""

    def __init__(self, source: Source, prefix: str):
        self._source, self._prefix, self._width = source, prefix, 0

    def has(self, name: str) -> bool:
        return f"{self._prefix}{name}/kernel" in self._source.names

    def conv(self, drawing: Drawing, name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = self._source.take(f"{self._prefix}{name}/kernel")
        sides = {"filters": kernel.shape[-1], "kernel_size": kernel.shape[0], "strides": stride}
        return drawing.add(name, "Conv2D", x, arrays=[kernel], padding="same", use_bias=False, **sides)

    def normed(self, drawing: Drawing, name: str, relu: str | None, x: Tensor) -> Tensor:
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        arrays = [self._source.take(f"{self._prefix}{name}/{part}") for part in parts]
        x = drawing.add(name, "BatchNormalization", x, arrays=arrays, momentum=NORM_MOMENTUM)
        return drawing.add(relu, "ReLU", x, max_value=6.0) if relu else x

    def block(self, drawing: Drawing, name: str, x: Tensor, *, stride: int, expand: bool) -> Tensor:
        before, came = x, self._width
        if expand:
            x = self.conv(drawing, f"{name}expand", x)
            x = self.normed(drawing, f"{name}expand_BN", f"{name}expand_relu", x)
        kernel = self._source.take(f"{self._prefix}{name}depthwise/kernel")
        # Keras pads by hand and then not at all; that comes to the same as "same" does.
        sides = {"kernel_size": kernel.shape[0], "strides": stride, "padding": "same", "use_bias": False}
        x = drawing.add(f"{name}depthwise", "DepthwiseConv2D", x, arrays=[kernel], **sides)
        x = self.normed(drawing, f"{name}depthwise_BN", f"{name}depthwise_relu", x)
        x = self.conv(drawing, f"{name}project", x)
        x = self.normed(drawing, f"{name}project_BN", None, x)
        self._width = self._source.shape(f"{self._prefix}{name}project/kernel")[-1]
        return drawing.add(f"{name}add", "Add", [before, x]) if stride == 1 and came == self._width else x
