"""What networks with attention have in common."""

from __future__ import annotations

from pydantic import ValidationInfo


def dividing(heads: int, info: ValidationInfo) -> int:
    """A number of heads that divides `dim`, which stands before it. Raises ValueError."""
    if info.data.get("dim", 0) % heads:
        raise ValueError(
            f"{heads} heads do not divide `dim`, which is {info.data['dim']}: choose another number of one of them"
        )
    return heads
