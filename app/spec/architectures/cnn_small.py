"""The article's network made small, for students: 2,258 parameters on 28×28×1 and ten classes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import cnn


class Spec(cnn.Spec):
    arch: Literal["cnn-small"] = "cnn-small"  # type: ignore[assignment]
    filters: cnn.Filters = [4, 8, 8]
    dense: int = Field(16, ge=1, le=4096)
