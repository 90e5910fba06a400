"""Residual networks on pictures (He et al. 2016, "Deep Residual Learning for Image Recognition"), the stride in the 3×3 convolution of a
bottleneck as PyTorch's have it, or in the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from app.pretrained.drawing import Drawing, Tensor
from app.pretrained.hugging_face.layers import Config, Drawn, Layers, Size, count
from app.pretrained.source import Source

EPSILON = 1e-5
SIZE = (224, 224)


class ResNet(Config):
    layer_type: Literal["bottleneck", "basic"] = "bottleneck"
    hidden_act: Literal["relu"] = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    depths: list[int] | None = Field(None, max_length=64)
    num_channels: int = Field(3, ge=1, le=4)


def build(source: Source, config: Mapping[str, Any], *, answers: bool, size: Size, usual: Size) -> Drawn:
    """On pixels as `preprocessor_config.json` makes them, whose size is `usual`. Features are the mean over all places; a head stands on
    them."""
    said = ResNet.of(config)
    inside = source.within("resnet.") if any(name.startswith("resnet.") for name in source.names) else source
    drawing = Drawing("image", (*(size or usual or SIZE), said.num_channels))
    layers = Layers(drawing, EPSILON)
    x = _normed(layers, inside, "stem", "embedder.embedder", drawing.input, stride=2)
    # After a ReLU a border of zeros is one of the smallest numbers, as the pooling's own would be.
    x = drawing.add("stem_pool_pad", "ZeroPadding2D", x, padding=1)
    x = drawing.add("stem_pool", "MaxPooling2D", x, pool_size=3, strides=2)
    depths = said.depths or []
    for stage in range(count(inside, "encoder.stages.", len(depths) or None)):
        halved = stage > 0 or said.downsample_in_first_stage
        theirs = f"encoder.stages.{stage}.layers"
        for number in range(count(inside, f"{theirs}.", depths[stage] if depths else None)):
            stride = 2 if halved and number == 0 else 1
            x = _block(layers, inside, f"stage{stage}_block{number}", f"{theirs}.{number}", x, stride, said)
    x = drawing.add("features", "GlobalAveragePooling2D", x)
    logits = layers.dense(source, "logits", "classifier.1", x) if answers else None
    return Drawn(drawing, "image", x, logits, [])


def _block(layers: Layers, source: Source, ours: str, theirs: str, x: Tensor, stride: int, said: ResNet) -> Tensor:
    number = 3 if said.layer_type == "bottleneck" else 2
    strided = 1 if said.layer_type == "bottleneck" and not said.downsample_in_bottleneck else 0
    short = x
    if f"{theirs}.shortcut.convolution.weight" in source.names:
        short = _normed(layers, source, f"{ours}_shortcut", f"{theirs}.shortcut", x, stride=stride, relu=False)
    for step in range(number):
        step_stride = stride if step == strided else 1
        last = step == number - 1
        x = _normed(layers, source, f"{ours}_{step}", f"{theirs}.layer.{step}", x, stride=step_stride, relu=not last)
    return layers.drawing.add(f"{ours}_relu", "ReLU", layers.drawing.add(f"{ours}_add", "Add", [short, x]))


def _normed(
    layers: Layers, source: Source, ours: str, theirs: str, x: Tensor, *, stride: int, relu: bool = True
) -> Tensor:
    x = layers.conv(source, f"{ours}_conv", f"{theirs}.convolution", x, stride=stride)
    x = layers.batch_norm(source, f"{ours}_norm", f"{theirs}.normalization", x)
    return layers.drawing.add(f"{ours}_relu", "ReLU", x) if relu else x
