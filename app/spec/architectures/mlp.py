"""A multilayer perceptron for tables."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.spec.architectures._base import Architecture


class Spec(Architecture):
    inputs: ClassVar[str] = "table"
    arch: Literal["mlp"] = "mlp"
    units: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=1, max_length=16)] = [64, 64]
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    batch_norm: bool = False
    dropout: float = Field(0.0, ge=0, lt=1, description="after each layer")
