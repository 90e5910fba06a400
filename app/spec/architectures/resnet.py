"""Residual networks for small pictures (He et al. 2016, section 4.2): depth 6n + 2, three stages of n blocks, 16, 32 and 64 channels wide.

"resnet-20" is short for {"arch": "resnet", "depth": 20}: 0.27 M parameters on pictures of three channels and ten classes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from app.spec.architectures._base import Architecture


class Spec(Architecture):
    inputs: ClassVar[str] = "image"
    arch: Literal["resnet"] = "resnet"
    depth: int = Field(20, ge=8, le=56, description="6n + 2: 8, 14, 20, … 56")
    width: int = Field(1, ge=1, le=16, description="times as many channels as the paper has")

    @field_validator("depth")
    @classmethod
    def _of_three_stages(cls, depth: int) -> int:
        if depth % 6 != 2:
            raise ValueError(
                f"expected 6n + 2, three stages of n blocks of two layers: {depth - (depth - 2) % 6} or {depth + -(depth - 2) % 6}"
            )
        return depth

    @property
    def label(self) -> str:
        return f"resnet-{self.depth}" + (f" ×{self.width}" if self.width > 1 else "")


SHORT = r"^(arch:)?resnet-(?P<depth>8|14|20|26|32|38|44|50|56)$"

EXAMPLE = {"arch": "resnet", "depth": 8}
