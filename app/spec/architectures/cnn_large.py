"""The article's network at twice the width, for teachers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import cnn


class Spec(cnn.Spec):
    arch: Literal["cnn-large"] = "cnn-large"  # type: ignore[assignment]
    filters: cnn.Filters = [64, 128, 128]
    dense: int = Field(128, ge=1, le=4096)
