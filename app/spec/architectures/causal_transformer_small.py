"""`causal-transformer` made small, for students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import causal_transformer


class Spec(causal_transformer.Spec):
    arch: Literal["causal-transformer-small"] = "causal-transformer-small"  # type: ignore[assignment]
    dim: int = Field(64, ge=8, le=768, description="numbers for each byte or token")
    depth: int = Field(1, ge=1, le=24)
    heads: int = Field(2, ge=1, le=16, validate_default=True)


EXAMPLE = {"arch": "causal-transformer-small", "dim": 16}
