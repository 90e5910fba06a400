"""What a guard is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """`old` becomes `new` in `file`. `proof` is a scenario's name (with a size), or a test.

    `without` names a guard that goes as well, where either alone is enough.
    """

    name: str
    file: str
    old: str
    new: str
    proof: str
    size: int = 0
    without: str = ""
