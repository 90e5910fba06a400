"""A residual network for tables (Gorishniy et al. 2021, section 3.2): blocks of two dense layers, each beside a skip.

The first layer embeds: a word of a category, laid out as one column of zeros and a one, adds a vector of its own.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from app.spec.architectures._base import Architecture


class Spec(Architecture):
    inputs: ClassVar[str] = "table"
    arch: Literal["table-resnet"] = "table-resnet"
    dim: int = Field(128, ge=4, le=2048, description="numbers between the blocks")
    depth: int = Field(2, ge=1, le=24, description="blocks")
    ratio: int = Field(2, ge=1, le=8, description="of `dim`: how wide a block is inside")
    dropout: float = Field(0.0, ge=0, lt=1, description="between a block's two layers")


EXAMPLE = {"arch": "table-resnet", "dim": 8, "depth": 2, "ratio": 2}
