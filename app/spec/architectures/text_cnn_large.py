"""`text-cnn` made large, for teachers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import text_cnn


class Spec(text_cnn.Spec):
    arch: Literal["text-cnn-large"] = "text-cnn-large"  # type: ignore[assignment]
    embedding: int = Field(64, ge=1, le=512, description="numbers for each byte or token")
    filters: int = Field(256, ge=1, le=1024, description="of each convolution")
    dense: int = Field(256, ge=1, le=4096)
