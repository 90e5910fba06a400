"""How much a model's file may hold, and what reading it may cost."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class ModelLimits:
    """Checked from headers before anything is allocated; memory and time bind the process that reads."""

    array_bytes: int = 2048 * MIB  # of all arrays, each number as it is kept
    memory_bytes: int = 2560 * MIB
    cpu_seconds: int = 60
    wall_seconds: float = 120

    @property
    def file_bytes(self) -> int:
        """Of the longest file that the reader writes: the arrays, with a header each."""
        return self.array_bytes + 64 * MIB
