"""Kills a trainer whose lease may have run out unnoticed: by then another worker may train the same job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def now() -> float:
    """Seconds on a clock that no one sets and that also counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseWatchdog:
    """Calls `on_expiry` once, `seconds` after `since` (by `now`) and after the last `extend`.

    The watchdog has a thread of its own: the main thread may hang in a call to a database that has vanished from the network.
    """

    def __init__(self, seconds: float, since: float, on_expiry: Callable[[], None]):
        self._seconds, self._on_expiry = seconds, on_expiry
        self._until = since + seconds
        self._closed = threading.Event()
        self.expired = False
        threading.Thread(target=self._expire, name="lease-watchdog", daemon=True).start()

    def extend(self, since: float) -> None:
        """The lease was extended by a call that began at `since` (by `now`)."""
        self._until = since + self._seconds

    def close(self) -> None:
        self._closed.set()

    def _expire(self) -> None:
        while not self._closed.wait(min(1.0, max(0.01, self._until - now()))):
            if now() >= self._until:
                self.expired = True
                self._on_expiry()
                return
