"""How many requests this process works on, and the refusal of more: a queue that only grows serves nobody in time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from starlette.requests import Request
from starlette.types import Scope

from app.errors import Problem
from app.settings import settings

_READS = ("GET", "HEAD")
_ALWAYS = ("/healthz", "/readyz")  # a process that is merely busy shall not be taken for dead
_RETRY_SECONDS = 1


class Crowd:
    """The requests that are worked on: of one event loop, so that nothing needs a lock."""

    def __init__(self) -> None:
        self.size = 0

    def admit(self, scope: Scope) -> Place:
        """A place for this request, until it is answered.

        Reads are refused at half of what may be: they cost little to repeat, and leave room to submit and to cancel.

        Raises:
            Problem: 429 `overloaded`.
        """
        most = settings().max_requests
        if scope["path"] in _ALWAYS:
            most = self.size + 1
        elif scope["method"] in _READS:
            most = -(-most // 2)
        if self.size >= most:
            raise Problem(
                "overloaded",
                f"{self.size} requests are being answered here, and no more than {most} may be when one of this kind comes"
                " (BEQUEST_MAX_REQUESTS).",
                headers={"retry-after": str(_RETRY_SECONDS)},
            )
        place = scope["state"]["place"] = Place(self)
        return place


class Place:
    """One request's place in the crowd."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd, self._held = crowd, True
        crowd.size += 1

    def leave(self) -> None:
        """It is answered, or its answer has begun. May be called again."""
        self._crowd.size -= self._held
        self._held = False

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Meanwhile it waits for something else than this process, and counts for nothing."""
        held = self._held
        self.leave()
        try:
            yield
        finally:
            self._held = held
            self._crowd.size += held


def aside(request: Request) -> contextlib.AbstractContextManager[None]:
    """`Place.aside` of a request, for handlers that wait: for a change of a job, for the reader of uploads."""
    place: Place = request.state.place
    return place.aside()
