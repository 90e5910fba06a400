"""How much memory this process fills."""

from __future__ import annotations

import os
from pathlib import Path


def resident() -> int:
    """In bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
