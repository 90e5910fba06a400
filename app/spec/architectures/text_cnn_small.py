"""`text-cnn` made small, for students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import text_cnn


class Spec(text_cnn.Spec):
    arch: Literal["text-cnn-small"] = "text-cnn-small"  # type: ignore[assignment]
    embedding: int = Field(16, ge=1, le=512, description="numbers for each byte or token")
    filters: int = Field(32, ge=1, le=1024, description="of each convolution")
    dense: int = Field(32, ge=1, le=4096)
