"""A transformer encoder (Vaswani et al. 2017) over the bytes or tokens of a text.

Bytes are embedded and joined, `stride` at a time, by a convolution before the first attention, as in CANINE (Clark et
al. 2022): attention over single bytes would cost the square of `stride` more. Norms stand before attention and dense
layers (Xiong et al. 2020); the mean over all places remains.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from app.spec.architectures._base import Shape
from app.spec.architectures._heads import dividing
from app.spec.architectures._text import TextArchitecture

MOST_PLACES = 1024
"""Attention takes time and memory by the square of their number."""


class Spec(TextArchitecture):
    arch: Literal["text-encoder"] = "text-encoder"
    stride: int = Field(4, ge=1, le=64, description="bytes or tokens that become one place")
    window: int | None = Field(
        None,
        ge=1,
        le=256,
        description="bytes or tokens around a place that the convolution sees, `stride` at least; null: `stride`",
    )
    dim: int = Field(128, ge=8, le=768, description="numbers for each place")
    depth: int = Field(2, ge=1, le=24)
    heads: int = Field(4, ge=1, le=16, validate_default=True)
    mlp_ratio: int = Field(4, ge=1, le=8, description="of `dim`: how wide the layers between are")
    dropout: float = Field(0.0, ge=0, lt=1, description="after attention, and after each dense layer")

    _divide = field_validator("heads")(dividing)

    def check(self, shape: Shape) -> None:
        if self.window is not None and self.window < self.stride:
            raise ValueError(
                f"a window of {self.window} {self.unit}s skips some at a stride of {self.stride}: choose a wider one"
            )
        if shape[0] % self.stride:
            raise ValueError(
                f"a stride of {self.stride} does not divide texts of {shape[0]} {self.unit}s: choose another `stride`"
            )
        if shape[0] // self.stride > MOST_PLACES:
            raise ValueError(
                f"{shape[0] // self.stride:,} places are more than {MOST_PLACES:,}: choose a larger `stride`"
            )


EXAMPLE = {"arch": "text-encoder", "stride": 8, "dim": 16, "depth": 1, "heads": 2, "mlp_ratio": 2}
