"""`table-resnet` made small, for students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import table_resnet


class Spec(table_resnet.Spec):
    arch: Literal["table-resnet-small"] = "table-resnet-small"  # type: ignore[assignment]
    dim: int = Field(32, ge=4, le=2048, description="numbers between the blocks")
    depth: int = Field(1, ge=1, le=24, description="blocks")
