"""`table-resnet` made large."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import table_resnet


class Spec(table_resnet.Spec):
    arch: Literal["table-resnet-large"] = "table-resnet-large"  # type: ignore[assignment]
    dim: int = Field(256, ge=4, le=2048, description="numbers between the blocks")
    depth: int = Field(4, ge=1, le=24, description="blocks")
