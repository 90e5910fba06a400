"""Admission control: how many requests are in flight in this process, and the refusal of more. A queue that only grows serves nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from starlette.requests import Request
from starlette.types import Scope

from app.errors import Problem
from app.settings import settings

_ALWAYS = ("/healthz", "/readyz")  # a process that is merely busy shall not be taken for dead
_RETRY_SECONDS = 1


class Admission:
    """Counts the requests in flight in one event loop, so nothing needs a lock."""

    def __init__(self) -> None:
        self.in_flight = 0

    def admit(self, scope: Scope) -> Slot:
        """A slot for this request, until it is answered.

        Reads and predictions are refused at half the limit: they cost little to repeat, and room is left to submit and to cancel.

        Raises:
            Problem: 429 `overloaded`.
        """
        method, path, most = scope["method"], scope["path"], settings().max_requests
        if method in ("GET", "HEAD") or path.endswith("/predict"):
            most = -(-most // 2)
        if self.in_flight >= most and path not in _ALWAYS:
            raise Problem(
                "overloaded",
                f"{self.in_flight} requests are in flight here, and of this kind one is taken only below {most} (BEQUEST_MAX_REQUESTS).",
                headers={"retry-after": str(_RETRY_SECONDS)},
            )
        slot = scope["state"]["slot"] = Slot(self)
        return slot


class Slot:
    """One request's place among those in flight."""

    def __init__(self, admission: Admission) -> None:
        self._admission, self._counts, self._answered = admission, False, False
        self._count(True)

    def leave(self) -> None:
        """The request is answered, or its answer has begun: it counts no more."""
        self._answered = True
        self._count(False)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The request waits for something outside this process, and does not count meanwhile."""
        if not self._counts:
            yield
            return
        self._count(False)
        try:
            yield
        finally:
            self._count(not self._answered)

    def _count(self, now: bool) -> None:
        self._admission.in_flight += now - self._counts
        self._counts = now


def aside(request: Request) -> contextlib.AbstractContextManager[None]:
    """`Slot.aside` of a request, for handlers that wait: for a change of a job, for the reader of uploads."""
    slot: Slot = request.state.slot
    return slot.aside()
