"""How much memory this process fills."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path


def resident() -> int:
    """In bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_allocated(work: Callable[[], object]) -> int:
    """In bytes, beyond what was allocated before; of what NumPy and Python allocate. The least of three times: what threads of other tests
    allocate meanwhile counts too."""
    return min(_allocated(work) for _ in range(3))


def _allocated(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
