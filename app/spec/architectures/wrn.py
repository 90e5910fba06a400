"""Wide residual networks (Zagoruyko and Komodakis 2016): depth 6n + 4, three groups of n blocks, 16, 32 and 64 times `widen` channels.

"wrn-16-2" is short for {"arch": "wrn", "depth": 16, "widen": 2}: 0.69 M parameters on pictures of three channels and ten classes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from app.spec.architectures._base import Architecture


class Spec(Architecture):
    inputs: ClassVar[str] = "image"
    arch: Literal["wrn"] = "wrn"
    depth: int = Field(16, ge=10, le=40, description="6n + 4: 10, 16, 22, … 40")
    widen: int = Field(2, ge=1, le=16, description="the paper's k")
    dropout: float = Field(0.0, ge=0, lt=1, description="between the two convolutions of a block")

    @field_validator("depth")
    @classmethod
    def _of_three_groups(cls, depth: int) -> int:
        if depth % 6 != 4:
            raise ValueError(
                f"expected 6n + 4, three groups of n blocks of two layers: {depth - (depth - 4) % 6} or {depth + -(depth - 4) % 6}"
            )
        return depth

    @property
    def label(self) -> str:
        return f"wrn-{self.depth}-{self.widen}"


SHORT = r"^(arch:)?wrn-(?P<depth>10|16|22|28|34|40)-(?P<widen>[1-9]|1[0-6])$"

EXAMPLE = {"arch": "wrn", "depth": 10, "widen": 1}
