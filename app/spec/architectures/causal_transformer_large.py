"""`causal-transformer` made large, for teachers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import causal_transformer


class Spec(causal_transformer.Spec):
    arch: Literal["causal-transformer-large"] = "causal-transformer-large"  # type: ignore[assignment]
    dim: int = Field(256, ge=8, le=768, description="numbers for each byte or token")
    depth: int = Field(4, ge=1, le=24)
    heads: int = Field(8, ge=1, le=16, validate_default=True)


EXAMPLE = {"arch": "causal-transformer-large", "dim": 16, "depth": 1}
