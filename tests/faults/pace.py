"""How fast this machine lets a program work, from second to second: beside other work all that has a limit of time is late."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray

ROUNDS = 200_000  # some milliseconds of work
USUAL_SECONDS = 0.0035
"""More than the rounds take on a machine of the usual speed. Where they take 0.0077, `./dev demo` takes four times what README says."""
PAUSE_SECONDS = 0.05
LONGEST_SECONDS = 24 * 3600


class Pace:
    """What a process of ordinary priority, which works a few milliseconds twenty times a second, has seen so far."""

    def __init__(self, seen: MutableSequence[float], began: float, least: MutableSequence[float]) -> None:
        self._seen, self._began, self._least = seen, began, least

    @property
    def own_slowness(self) -> float:
        """How many times longer than on a machine of the usual speed the processor itself works, whoever else does: at its best."""
        return max(1.0, self._least[0] / USUAL_SECONDS)

    def slowness(self, since: float, until: float) -> float:
        """How many times longer than on a quiet machine of the usual speed work took, in half of the seconds between two moments at least.

        Moments are `time.monotonic()`'s.
        """
        first, last = (max(0, int(moment - self._began)) for moment in (since, until))
        return max(1.0, statistics.median(self._seen[first : last + 1]))


@contextmanager
def watched() -> Iterator[Pace]:
    """Looks until the end of the block."""
    seen, least, began = RawArray("d", LONGEST_SECONDS), RawArray("d", 1), time.monotonic()
    process = multiprocessing.get_context("spawn").Process(
        target=_look, args=(seen, least, began, os.getpid()), daemon=True
    )
    process.start()
    try:
        yield Pace(seen, began, least)
    finally:
        process.terminate()
        process.join()


def _look(seen: MutableSequence[float], least: MutableSequence[float], began: float, parent: int) -> None:
    least[0], second, spans = float("inf"), 0, list[float]()
    while os.getppid() == parent:
        start, spent = time.monotonic(), time.thread_time()
        for _ in range(ROUNDS):
            pass
        worked = time.thread_time() - spent  # taken within the span, so that it is never longer
        end = time.monotonic()
        # The least of the processor's time is what the work takes: whoever else works makes it wait, not longer.
        least[0] = min(least[0], worked)
        if int(start - began) != second:
            second, spans = int(start - began), []
        spans.append(end - start)
        for late in range(second, int(end - began) + 1):
            seen[late] = max(seen[late], sum(spans) / len(spans) / min(least[0], USUAL_SECONDS))
        time.sleep(PAUSE_SECONDS)
