"""`text-encoder` made large."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import text_encoder


class Spec(text_encoder.Spec):
    arch: Literal["text-encoder-large"] = "text-encoder-large"  # type: ignore[assignment]
    dim: int = Field(256, ge=8, le=768, description="numbers for each place")
    depth: int = Field(4, ge=1, le=24)
    heads: int = Field(8, ge=1, le=16, validate_default=True)
