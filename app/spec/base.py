"""The base of every spec, and what all kinds of job have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.spec.exports import ExportFormat


class Words(BaseModel):
    """Unknown fields are refused, numbers are finite, nothing is coerced (true is no number, "3" is no integer)."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


Label = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=-]*$")]
TaskName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class JobSpec(Words):
    """What every kind of job may say about itself; each kind's Spec adds the rest."""

    kind: str
    name: Label | None = None
    tags: list[Tag] = Field(default=[], max_length=32)
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default={}, max_length=32
    )
    priority: int = Field(5, ge=0, le=9, description="larger first")
    max_seconds: int = Field(86_400, ge=1, le=2_592_000, description="wall time of one attempt, in seconds")
    max_attempts: int = Field(3, ge=1, le=10)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    export: list[ExportFormat] = Field(
        default=["keras"], max_length=8, description="files of the job's model; model.keras is always one of them"
    )


FREE_WORDS = ("name", "tags", "metadata")
"""Of a spec: whatever they say, they refer to nothing."""


def plain(words: BaseModel) -> dict[str, Any]:
    """A spec as JSON types, defaults included: what `resolved_spec` shows and what the trainer is given."""
    return words.model_dump(mode="json")
