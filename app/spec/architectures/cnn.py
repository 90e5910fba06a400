"""The source article's convolutional network: Conv 32, 64, 64 of 3×3 with ReLU, two poolings between, Dense 64.

93,322 parameters on 28×28×1 and ten classes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.spec.architectures._base import Architecture, Shape

Filters = Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1, max_length=8)]

KERNEL, POOL = 3, 2


class Spec(Architecture):
    inputs: ClassVar[str] = "image"
    arch: Literal["cnn"] = "cnn"
    filters: Filters = [32, 64, 64]
    dense: int = Field(64, ge=1, le=4096)
    batch_norm: bool = Field(False, description="after each convolution, before its ReLU")
    dropout: float = Field(0.0, ge=0, lt=1, description="after the dense layer")

    def check(self, shape: Shape) -> None:
        given = list(shape)
        for number, width in enumerate(self.filters, 1):
            steps = {f"conv{number}": [*(side - KERNEL + 1 for side in given[:2]), width]}
            if number < len(self.filters):
                steps[f"pool{number}"] = [*(side // POOL for side in steps[f"conv{number}"][:2]), width]
            for name, left in steps.items():
                if min(left) < 1:
                    depth = f"{self.arch} is too deep for inputs of shape {list(shape)}"
                    raise ValueError(f"{depth}: layer {name} gets {given}")
                given = left
