"""`late-fusion` made small, for students: each part has the network that students of its kind have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.spec.architectures import late_fusion


class Spec(late_fusion.Spec):
    default: ClassVar[Literal["ARCHITECTURE", "STUDENT"]] = "STUDENT"
    arch: Literal["late-fusion-small"] = "late-fusion-small"  # type: ignore[assignment]
    units: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(max_length=8)] = Field(
        [32], description="dense layers on the features of all parts"
    )
