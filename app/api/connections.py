"""uvicorn's HTTP/1.1 connection, bounded: `uvicorn app.main:app --http app.api.connections:Connection`.

uvicorn gives a client any time for the head of a request, and takes any number of connections. A thousand clients that never finish
a head would then use up the process's files, and nobody else could connect.
"""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Any
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from app import logs
from app.programs import BACKLOG
from app.settings import settings

log = logs.get(__name__)

HEAD_SECONDS = 10.0  # for a whole head, and for the rest of a body that nobody reads any more
STALLED_SECONDS = 60.0  # for a client to take some of an answer that waits for it
SILENT_SECONDS = 2.0  # after which a body on its way makes room for a new connection
OTHER_FILES = 256 + 2 * BACKLOG
"""Open files beyond those of the connections that may be: the database's, those being read, the process's own; and two rounds of
connections that were accepted and not read yet."""
LOG_SECONDS = 10.0  # between two log lines about the same shortage


def most_connections() -> int:
    """How many connections this process may hold: as set, and as its limit of open files allows."""
    return max(1, min(settings().max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES))


@dataclass
class _Waiting:
    """A server's connections without a request in progress, the longest waiting first: `new` never had a request, `served` had."""

    new: dict[Connection, None] = field(default_factory=dict)
    served: dict[Connection, None] = field(default_factory=dict)

    def forget(self, connection: Connection) -> None:
        self.new.pop(connection, None)
        self.served.pop(connection, None)


_waiting: WeakKeyDictionary[ServerState, _Waiting] = WeakKeyDictionary()


class Connection(H11Protocol):
    """A connection *waits* while it has no request in progress. When there are too many, one makes room for the new one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._waiting = _waiting.setdefault(self.server_state, _Waiting())
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent, self._received_at = 0, self.loop.time()
        self._is_unread = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_soon(self.loop.call_soon, self._may_have_been_read)
        self._make_room(self)
        if not transport.is_closing():
            self._waiting.new[self] = None
            self._expect_head()

    def _may_have_been_read(self) -> None:
        """The loop has asked its system since for what has come here: a request that came with the connection is known."""
        self._is_unread = False
        self._make_room(None)

    def _make_room(self, last: Connection | None) -> None:
        """While there are too many. `last`: who goes when nobody else can."""
        while len(self.connections) > most_connections() and (leaving := self._in_favour(last)):
            _crowded.tell("a connection was closed: as many are open as may be", most=most_connections())
            leaving.transport.abort()
            self.connections.discard(leaving)
            self._waiting.forget(leaving)

    def _in_favour(self, last: Connection | None) -> Connection | None:
        """The connection that makes room: the longest waiting whose client has taken its whole answer, those that never had a request
        first; else one whose body is silent; else one whose answer is not taken yet; else `last`. None yet, where all that never
        had a request came a moment ago and are not read yet: some of a crowd may have brought a request."""
        waiting = self._waiting
        if (oldest := next(iter(waiting.new), None)) and oldest._is_unread:
            return None
        read = takewhile(lambda other: not other._is_unread, waiting.new)
        free = (other for other in chain(read, waiting.served) if not other.transport.get_write_buffer_size())
        silent = (other for other in self.connections if isinstance(other, Connection) and other._is_silent())
        return next(chain(free, silent, waiting.served), last)

    def _is_silent(self) -> bool:
        """Whether a request's body should be on its way, and has not come for a while."""
        waits = not self._is_idle() and self.conn.their_state is h11.SEND_BODY
        return waits and self.loop.time() - self._received_at > SILENT_SECONDS

    def data_received(self, data: bytes) -> None:
        self._received_at = self.loop.time()
        if self._is_idle():
            self._expect_head()
        super().data_received(data)
        self._settle()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # and begins the next request, where its head is here already
        self._settle()
        # The rest of a body is thrown away as it comes, and a head may have begun to come.
        if self._is_idle() and (self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]):
            self._expect_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._waiting.forget(self)
        self._expect_no_head()
        self._stop_write_timer()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None before the first request

    def _expect_taking(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(STALLED_SECONDS, self._has_taken)

    def _has_taken(self) -> None:
        """Waits on while the client takes some of its answer: asyncio tells only when nearly all is taken."""
        if self.transport.get_write_buffer_size() < self._unsent:
            self._expect_taking()
        else:
            self.transport.abort()

    def _settle(self) -> None:
        """Notes whether the connection waits now."""
        if not self._is_idle():
            self._waiting.forget(self)
            self._expect_no_head()
        elif self not in self._waiting.new:
            self._waiting.served.setdefault(self)

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _expect_no_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _head_is_late(self) -> None:
        """Closes the connection. A client that has begun a head is told why; one that has sent nothing would misread that."""
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            headers = [("content-length", "0"), ("connection", "close")]
            answer = h11.Response(status_code=408, headers=headers, reason=STATUS_PHRASES[408])
            self.transport.write(self.conn.send(answer))
        self.transport.close()


class _Shortage:
    """Logs a shortage once in a while, with how often it came about meanwhile."""

    def __init__(self) -> None:
        self._count, self._logged_at = 0, float("-inf")

    def tell(self, text: str, **values: object) -> None:
        self._count += 1
        if time.monotonic() - self._logged_at >= LOG_SECONDS:
            log.warning(text, times=self._count, **values)
            self._count, self._logged_at = 0, time.monotonic()


_crowded = _Shortage()
_refused = _Shortage()


def quiet(loop: asyncio.AbstractEventLoop) -> None:
    """Has `loop` log a line now and then while it can accept no connection, where asyncio logs two thousand tracebacks a second."""
    former = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(error := context.get("exception"), OSError) and "accept" in context.get("message", ""):
            _refused.tell("no connection can be accepted", reason=error.strerror)
        elif former is None:
            loop.default_exception_handler(context)
        else:
            former(loop, context)

    loop.set_exception_handler(handle)
