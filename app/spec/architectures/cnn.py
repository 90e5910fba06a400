"""The source article's convolutional network: Conv 32, 64, 64 of 3×3 with ReLU, two poolings between, Dense 64.

93,322 parameters on 28×28×1 and ten classes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.spec.architectures._layers import Architecture, Layer

Filters = Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1, max_length=8)]


class Spec(Architecture):
    inputs: ClassVar[Literal["image", "table"]] = "image"
    arch: Literal["cnn"] = "cnn"
    filters: Filters = [32, 64, 64]
    dense: int = Field(64, ge=1, le=4096)
    batch_norm: bool = Field(False, description="after each convolution, before its ReLU")
    dropout: float = Field(0.0, ge=0, lt=1, description="after the dense layer")

    def layers(self) -> list[Layer]:
        return convolutions(self.filters, self.dense, self.batch_norm, self.dropout)


def convolutions(filters: list[int], dense: int, batch_norm: bool, dropout: float) -> list[Layer]:
    """conv1, pool1, conv2, pool2, … convN (no pooling after the last), flatten, dense1."""
    layers: list[Layer] = []
    for number, width in enumerate(filters, 1):
        if batch_norm:
            layers += [
                Layer(f"conv{number}", "conv2d", {"filters": width, "use_bias": False}),
                Layer(f"norm{number}", "batch_norm"),
                Layer(f"relu{number}", "activation", {"activation": "relu"}),
            ]
        else:
            layers.append(Layer(f"conv{number}", "conv2d", {"filters": width, "activation": "relu"}))
        if number < len(filters):
            layers.append(Layer(f"pool{number}", "max_pool2d"))
    layers += [Layer("flatten", "flatten"), Layer("dense1", "dense", {"units": dense, "activation": "relu"})]
    return [*layers, Layer("dropout1", "dropout", {"rate": dropout})] if dropout else layers
