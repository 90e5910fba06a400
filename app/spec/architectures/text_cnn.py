"""A convolutional network over the bytes of a text, after the character-level network of Zhang, Zhao and LeCun (2015).

Bytes are embedded and not one-hot, there are three convolutions and not six, and the largest value over all places is what remains.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures._base import Shape
from app.spec.architectures._text import TextArchitecture

POOL = 3


class Spec(TextArchitecture):
    arch: Literal["text-cnn"] = "text-cnn"
    embedding: int = Field(32, ge=1, le=512, description="numbers for each byte or token")
    filters: int = Field(128, ge=1, le=1024, description="of each convolution")
    dense: int = Field(128, ge=1, le=4096)
    dropout: float = Field(0.0, ge=0, lt=1, description="after the dense layer")

    def check(self, shape: Shape) -> None:
        if shape[0] < POOL**2:
            raise ValueError(
                f"{self.arch} needs texts of {POOL**2} {self.unit}s or more, these have {shape[0]}: layer pool2 ends"
            )
