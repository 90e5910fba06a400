"""`text-encoder` made small, for students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import text_encoder


class Spec(text_encoder.Spec):
    arch: Literal["text-encoder-small"] = "text-encoder-small"  # type: ignore[assignment]
    dim: int = Field(64, ge=8, le=768, description="numbers for each place")
    depth: int = Field(1, ge=1, le=24)
    heads: int = Field(2, ge=1, le=16, validate_default=True)
