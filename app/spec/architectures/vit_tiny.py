"""A vision transformer (Dosovitskiy et al. 2021) for small pictures, in the numbers of DeiT-Ti (Touvron et al. 2021): 12 layers, 192 wide.

Patches are 4 pixels wide and not 16. The heads stand on the mean over all places and not on a class token (Beyer et al. 2022).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from app.spec.architectures._base import Architecture, Shape
from app.spec.architectures._heads import dividing

MOST_PATCHES = 1024
"""Attention takes time and memory by the square of their number."""


class Spec(Architecture):
    inputs: ClassVar[str] = "image"
    arch: Literal["vit-tiny"] = "vit-tiny"
    patch: int = Field(4, ge=1, le=32, description="height and width of a patch, in pixels")
    dim: int = Field(192, ge=8, le=768, description="numbers for each patch")
    depth: int = Field(12, ge=1, le=24)
    heads: int = Field(3, ge=1, le=16, validate_default=True)
    mlp_ratio: int = Field(4, ge=1, le=8, description="of `dim`: how wide the layers between are")
    dropout: float = Field(0.0, ge=0, lt=1, description="after attention, and after each dense layer")

    _divide = field_validator("heads")(dividing)

    def check(self, shape: Shape) -> None:
        height, width = shape[:2]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"patches of {self.patch}×{self.patch} do not divide pictures of {height}×{width}: choose another `patch`"
            )
        count = (height // self.patch) * (width // self.patch)
        if count > MOST_PATCHES:
            raise ValueError(
                f"{count:,} patches of {self.patch}×{self.patch} are more than {MOST_PATCHES:,}: choose a larger `patch`"
            )


EXAMPLE = {"arch": "vit-tiny", "patch": 7, "dim": 8, "depth": 1, "heads": 2, "mlp_ratio": 1}
