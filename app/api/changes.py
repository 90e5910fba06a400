"""Waiting for a job to change: one LISTEN connection per process wakes every stream and long poll.

Postgres only wakes; changes are always read from the tables, so a lost notification costs at most a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

import anyio
import anyio.to_thread
import psycopg
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.requests import Request

from app import events, logs
from app.errors import Problem
from app.settings import settings

log = logs.get(__name__)

POLL_SECONDS = 1.0
CALM_SECONDS = 0.05
READERS = 8
OUTAGE_SECONDS = 60.0  # a stream outlives a restart of the database

Result = TypeVar("Result")


class Changes:
    """Who waits for which job, in this process."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closing = False
        self.watches = 0
        self.readers = anyio.CapacityLimiter(READERS)

    @contextlib.contextmanager
    def waiter(self, job_id: str) -> Iterator[Waiter]:
        """Watches from now on: read after entering, and no change is missed."""
        changed = asyncio.Event()
        self._waiting[job_id].add(changed)
        self.watches += 1
        try:
            yield Waiter(self, changed)
        finally:
            self.watches -= 1
            self._waiting[job_id].discard(changed)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    @property
    def full(self) -> bool:
        """Whether no further stream or long poll may open. Those that are open go on."""
        return self.watches >= settings().max_streams

    def refuse_when_full(self) -> None:
        """For a stream, before it begins. A long poll is answered at once instead: its preference may go unmet."""
        if self.full:
            raise Problem(
                "too_many_streams",
                f"{settings().max_streams} streams and long polls are open here, as many as may be (BEQUEST_MAX_STREAMS).",
                headers={"retry-after": "5"},
            )

    def close(self) -> None:
        """Ends every wait now and to come: the process is about to stop."""
        self.closing = True
        self._wake(*self._waiting)

    async def listen(self) -> None:
        """Runs until cancelled; a lost connection is made anew, and meanwhile the waits poll."""
        while True:
            try:
                await self._listen_once()
            except psycopg.Error as error:
                log.warning("listening for changes was interrupted", reason=type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def _listen_once(self) -> None:
        url = (settings().database_url or "").replace("postgresql+psycopg://", "postgresql://", 1)
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="bequest-listen")
        async with connection:
            await connection.execute(f"LISTEN {events.CHANNEL}".encode())
            self._wake(*self._waiting)
            async for note in connection.notifies():
                self._wake(note.payload)

    def _wake(self, *job_ids: str) -> None:
        for job_id in job_ids:
            for changed in self._waiting.get(job_id, ()):
                changed.set()


def changes_of(request: Request) -> Changes:
    """The process's own."""
    changes: Changes = request.app.state.changes
    return changes


class Waiter:
    """One wait for one job: read, then wait for a change, and so on."""

    def __init__(self, changes: Changes, changed: asyncio.Event) -> None:
        self._changes, self._changed = changes, changed
        self._read_at = float("-inf")

    @property
    def closing(self) -> bool:
        return self._changes.closing

    async def read(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Runs `function` in a thread; an event after its start counts as a change. Few reads run at a time, so any
        number of streams leaves threads and connections to other requests. While the database is away, the read is
        tried again for `OUTAGE_SECONDS`."""
        self._changed.clear()
        until = time.monotonic() + OUTAGE_SECONDS
        while True:
            self._read_at = time.monotonic()
            try:
                return await anyio.to_thread.run_sync(function, *arguments, limiter=self._changes.readers)
            except (OperationalError, InterfaceError):
                if self.closing or time.monotonic() > until:
                    raise
                await asyncio.sleep(POLL_SECONDS)

    async def changed(self, seconds: float = POLL_SECONDS) -> None:
        """Returns at a change, at shutdown, or after `seconds` (at most the poll interval)."""
        if self.closing:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(max(seconds, 0.01), POLL_SECONDS))
        # Many changes in a moment are one.
        await asyncio.sleep(max(0.0, self._read_at + CALM_SECONDS - time.monotonic()))


@contextlib.contextmanager
def at_signal(act: Callable[[], None]) -> Iterator[None]:
    """Runs `act` in the loop as soon as SIGTERM or SIGINT arrives, before the server's own handler.

    uvicorn tells the application of a stop only after every open stream has ended, so streams would hold it up.
    """
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, object] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.getsignal(number)
            if callable(before[number]):
                signal.signal(number, handle)
    except ValueError:
        # Not the main thread (a server inside a test): nobody sends us signals there.
        before.clear()
    try:
        yield
    finally:
        for number, previous in before.items():
            if callable(previous):
                signal.signal(number, previous)
