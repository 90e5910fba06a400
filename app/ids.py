"""Ids that clients see: a prefix that names the kind, then a UUIDv7, so that they sort by time of making."""

from __future__ import annotations

import uuid_utils


def new(prefix: str) -> str:
    """`new("job")` is "job_" and 32 hexadecimal digits."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
