"""The base of every part of a report."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Unknown fields are refused, numbers are finite, nothing is coerced. A field with a default is absent where it has no meaning."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True, serialize_by_alias=True)
