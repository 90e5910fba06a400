"""How request bodies are received: how large each may be, how slowly it may come, and how much of all may be held at once.

A refusal in the middle of a body leaves the connection open: what still comes is thrown away, for a while (`app.api.connections`).
If the server closed at once, the client's system would throw away the answer.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from app.api.bodies import media_type_of
from app.errors import Problem
from app.settings import Settings, settings

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Message, Receive, Scope

PIECE_BYTES = 64 * 1024
PIECE_SECONDS = 30.0
"""Each piece of a body (the last may be shorter) comes within so many seconds of the one before."""
PRESSED_SECONDS = 2.0
"""Within so many, while others wait for the room that the body takes."""

LARGE_BYTES, TRIM_SECONDS = 2**20, 1.0
_FORM_OVERHEAD = 64 * 1024  # boundaries, part headers and the small fields beside the file
_RETRY_SECONDS = 2


class BodyBudget:
    """Bodies of one kind, and how many bytes of them are held: in memory, or of uploads on the disk."""

    def __init__(self, what: str, largest: str, together: str, overhead: int = 0) -> None:
        """`largest` and `together` name the settings for one body and for all of the kind."""
        self.what, self._largest, self._together, self._overhead = what, largest, together, overhead
        self.held = 0
        self.coming: set[Body] = set()
        self._trims = False

    @property
    def largest(self) -> int:
        return _setting(self._largest) + self._overhead

    @property
    def together(self) -> int:
        """One of the largest fits, whatever the settings say."""
        return max(_setting(self._together), self.largest)

    def too_large(self) -> Problem:
        return Problem("body_too_large", f"At most {self.largest} bytes are taken here ({_name(self._largest)}).")

    def too_many(self) -> Problem:
        return Problem(
            "overloaded",
            f"The bodies of {self.what} that are held here take {self.together} bytes, as many as may be ({_name(self._together)}).",
            headers={"retry-after": str(_RETRY_SECONDS)},
        )

    def give_memory_back(self) -> None:
        """Gives freed memory to the system, in a moment. By itself glibc does so at its heap's end alone, and bodies lie further in."""
        trim = _allocator()
        if trim is None or self._trims:
            return
        self._trims = True

        def give() -> None:
            self._trims = False
            trim(0)

        asyncio.get_running_loop().call_later(TRIM_SECONDS, give)

    def make_room(self, wanting: Body, wanted: int) -> None:
        """Makes room for `wanted` more bytes of `wanting`, if need be by giving up bodies that come too slowly.

        Raises:
            Problem: 429 `overloaded`: all others come as fast as they should.
        """
        slow = sorted((body for body in self.coming - {wanting} if body.stalled() > PRESSED_SECONDS), key=Body.stalled)
        while self.held + wanted > self.together:
            if not slow:
                raise self.too_many()
            slow.pop().give_up()


class BodyBudgets:
    """All bodies of one event loop, so that nothing needs a lock."""

    def __init__(self) -> None:
        self._uploads = BodyBudget("uploads", "max_upload_bytes", "max_uploads_bytes", _FORM_OVERHEAD)
        self._predictions = BodyBudget("predictions", "max_predict_bytes", "max_bodies_bytes")
        self._others = BodyBudget("other requests", "max_body_bytes", "max_bodies_bytes")
        self.kinds = (self._uploads, self._predictions, self._others)

    def body(self, scope: Scope, headers: Headers) -> Body:
        """The body of a request that has just come.

        Raises:
            Problem: 413 or 429, by its declared length.
        """
        return Body(self._kind(scope["method"], scope["path"], headers), headers)

    def _kind(self, method: str, path: str, headers: Headers) -> BodyBudget:
        if method == "POST" and path in ("/v1/datasets", "/v1/models") and media_type_of(headers) != "application/json":
            return self._uploads
        if method == "POST" and path.startswith("/v1/models/") and path.endswith("/predict"):
            return self._predictions
        return self._others


class Body:
    """One body. Its received bytes hold room until the request is answered: handlers keep them, and the values in them.

    Its declared length is compared with the room there is now, and takes none: a slow client would hold that room for hours.
    """

    def __init__(self, kind: BodyBudget, headers: Headers) -> None:
        self._kind, self._taken, self._held = kind, 0, 0
        self._piece, self._waited = (
            0,
            0.0,
        )  # bytes of the piece that is coming, and seconds that were spent on waiting for them
        self._since: float | None = None  # while somebody waits
        self._timeout: asyncio.Timeout | None = None
        self._given_up = False
        declared = headers.get("content-length", "")
        length = int(declared[:20]) if declared.isdecimal() else 0
        if length > kind.largest:
            raise kind.too_large()
        kind.make_room(self, length)
        if length or "transfer-encoding" in headers:
            kind.coming.add(self)

    def received(self, receive: Receive, answered: Callable[[], bool]) -> Receive:
        """`receive`, ending in a problem as soon as the body is too large, whatever the headers claim, or too slow."""

        async def counted() -> Message:
            if self._given_up:
                raise _too_slow()
            if self not in self._kind.coming or answered():  # what may still come is the end of the connection
                return await receive()
            self._since = _now()
            try:
                async with asyncio.timeout(PIECE_SECONDS - self._waited) as self._timeout:
                    message = await receive()
            except TimeoutError:
                raise _too_slow() from None
            finally:
                self._timeout = None
                self._waited, self._since = self.stalled(), None
            self._count(len(message.get("body", b"")))
            if not message.get("more_body", False):
                self._kind.coming.discard(self)
            return message

        return counted

    def stalled(self) -> float:
        """Seconds that were spent on waiting for the piece that is coming. A body that nobody reads just now is not slow."""
        return self._waited + (0.0 if self._since is None else _now() - self._since)

    def give_up(self) -> None:
        """Ends the wait for the rest, in favour of others."""
        self._given_up = True
        self.leave()
        if self._timeout is not None:
            with suppress(RuntimeError):  # it is ending just now
                self._timeout.reschedule(_now())

    def leave(self) -> None:
        """Gives its room back."""
        self._kind.coming.discard(self)
        self._kind.held -= self._held
        if self._held > LARGE_BYTES:
            self._kind.give_memory_back()
        self._held = 0

    def _count(self, length: int) -> None:
        self._taken += length
        self._piece += length
        if self._taken > self._kind.largest:
            raise self._kind.too_large()
        if self._piece >= PIECE_BYTES:
            self._piece, self._waited = 0, 0.0
        self._kind.make_room(self, length)
        self._kind.held += length
        self._held += length


def _too_slow() -> Problem:
    return Problem(
        "request_timeout",
        f"Each {PIECE_BYTES} bytes of a body are to come within {PIECE_SECONDS:.0f} s; within {PRESSED_SECONDS:.0f} s while "
        "others wait for the room that it takes.",
        headers={"connection": "close"},
    )


@cache
def _allocator() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _setting(field: str) -> int:
    return int(getattr(settings(), field))


def _name(field: str) -> str:
    return str(Settings.model_fields[field].alias)
