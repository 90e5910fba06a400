"""Clients that never finish a head, never read an answer, or are too many: they are closed, and others are served."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api import connections
from app.api.connections import OTHER_FILES, most_connections, quiet
from app.settings import settings
from tests.app.api.conftest import begun, everything, wait_for

HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow:"


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)


@contextmanager
def line_to(client: httpx.Client) -> Iterator[socket.socket]:
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname or "", address.port or 80), 10) as line:
        yield line


def asked(line: socket.socket) -> bytes:
    """The answer to a whole request."""
    line.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    found = b""
    while not found.endswith(b"}") and (part := line.recv(65536)):
        found += part
    return found


def is_closed_to(line: socket.socket, request: bytes) -> bool:
    try:
        line.sendall(request)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def test_a_head_that_is_not_finished_in_time_is_answered_and_closed(client: httpx.Client, short_patience: None) -> None:
    with line_to(client) as line:
        line.sendall(HALF_A_HEAD)
        assert everything(line).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_head_that_trickles_is_closed_as_well(client: httpx.Client, short_patience: None) -> None:
    """The time is for the whole head, whatever comes of it meanwhile."""
    with line_to(client) as line:
        line.sendall(HALF_A_HEAD)
        line.settimeout(0.05)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                line.sendall(b"x")
                if line.recv(100).startswith(b"HTTP/1.1 408"):
                    return
            except TimeoutError:
                continue
        pytest.fail("it was never closed")


def test_a_connection_that_says_nothing_is_closed_without_an_answer(client: httpx.Client, short_patience: None) -> None:
    with line_to(client) as line:
        assert everything(line) == b""


def test_the_second_head_of_a_connection_has_its_time_too(client: httpx.Client, short_patience: None) -> None:
    with line_to(client) as line:
        assert asked(line).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)  # a connection that is kept alive may be silent for longer
        assert asked(line).startswith(b"HTTP/1.1 200")
        line.sendall(HALF_A_HEAD)
        assert everything(line).startswith(b"HTTP/1.1 408")


def test_a_head_that_comes_behind_a_whole_request_has_its_time_too(client: httpx.Client, short_patience: None) -> None:
    with line_to(client) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" + HALF_A_HEAD)
        said = everything(line)
        assert said.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408" in said


def test_the_rest_of_a_body_that_nobody_reads_has_its_time(client: httpx.Client, short_patience: None) -> None:
    with begun(client, "POST", "content-length: 1000\r\n", "{", "/nowhere") as line:
        assert everything(line).startswith(b"HTTP/1.1 404")


def test_a_request_that_takes_long_is_not_closed(client: httpx.Client, short_patience: None, database: None) -> None:
    from tests.app.api.conftest import add_job, start_job

    job = add_job()
    start_job(job)
    answer = client.get(f"/v1/jobs/{job}", headers={"prefer": "wait=2"})
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() > 1.5


def test_a_client_that_does_not_read_its_answer_is_closed(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many answers at once fill what the two systems hold for it."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    with line_to(client) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(0.3)
        wait_for(lambda: is_closed_to(line, b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20), 20)


def test_the_connection_that_has_waited_longest_makes_room(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settings(), "max_connections", 20)
    monkeypatch.setattr(connections, "LOG_SECONDS", 60.0)
    with ExitStack() as stack:
        lines = []
        for _ in range(60):
            lines.append(stack.enter_context(line_to(client)))
            lines[-1].sendall(HALF_A_HEAD)
        assert client.get("/healthz").status_code == 200
        for line in lines[:39]:
            assert everything(line) == b"", "it made room"
        lines[-1].sendall(b" x\r\n\r\n")
        assert lines[-1].recv(100).startswith(b"HTTP/1.1 200"), "the youngest are served"
    assert caplog.text.count("as many are open as may be") == 1, "said once in a while, not once a connection"


def test_a_connection_that_has_had_a_request_makes_room_last(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_connections", 20)
    with ExitStack() as stack:
        kept = stack.enter_context(line_to(client))
        assert asked(kept).startswith(b"HTTP/1.1 200")
        for _ in range(60):
            stack.enter_context(line_to(client)).sendall(HALF_A_HEAD)
        time.sleep(0.2)
        assert asked(kept).startswith(b"HTTP/1.1 200")


def test_one_that_had_a_request_makes_room_for_a_new_client(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many polite clients keep their connections: a new one is served, and the one that has waited longest goes."""
    monkeypatch.setattr(settings(), "max_connections", 20)
    with ExitStack() as stack:
        lines = [stack.enter_context(line_to(client)) for _ in range(20)]
        for line in lines:
            assert asked(line).startswith(b"HTTP/1.1 200")
        with line_to(client) as new:
            assert asked(new).startswith(b"HTTP/1.1 200")
            assert everything(lines[0]) == b""
            assert asked(lines[1]).startswith(b"HTTP/1.1 200")


def test_one_whose_body_does_not_come_makes_room_for_a_new_client(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_connections", 20)
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.3)
    head = "content-type: application/json\r\ncontent-length: 100\r\n"
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(begun(client, "POST", head, "{"))
        time.sleep(0.5)
        for _ in range(5):
            with line_to(client) as new:
                assert asked(new).startswith(b"HTTP/1.1 200")


def test_one_whose_answer_is_not_taken_yet_makes_room_last(
    app: FastAPI, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"x" * (32 << 20)  # more than the two systems hold for it
    monkeypatch.setattr(settings(), "max_connections", 3)
    with answering(app, large), ExitStack() as stack:
        reading = stack.enter_context(line_to(client))
        reading.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert reading.recv(1, socket.MSG_PEEK)  # else the others might come before its request
        others = [stack.enter_context(line_to(client)) for _ in range(4)]
        for line in others[-2:]:
            assert asked(line).startswith(b"HTTP/1.1 200")
        assert asked(stack.enter_context(line_to(client))).startswith(b"HTTP/1.1 200"), "one that was answered goes"
        left = len(large)
        while left > 0 and (part := reading.recv(1 << 20)):
            left -= len(part.partition(b"\r\n\r\n")[2]) if part.startswith(b"HTTP/1.1 200") else len(part)
        assert left == 0


def test_requests_of_a_crowd_that_comes_at_once_are_all_heard(
    app: FastAPI, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is busy while they come, so that all are accepted before any is read."""
    monkeypatch.setattr(settings(), "max_connections", 20)

    async def busy(_: object) -> Response:
        time.sleep(1)  # noqa: ASYNC251 - so nothing else is done meanwhile
        return Response()

    with answering(app, busy), ExitStack() as stack:
        first = stack.enter_context(line_to(client))
        first.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        time.sleep(0.3)
        crowd = [stack.enter_context(line_to(client)) for _ in range(60)]
        for line in crowd:
            line.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert [everything(line)[:12] for line in crowd] == [b"HTTP/1.1 200"] * 60
        assert first.recv(100).startswith(b"HTTP/1.1 200")


def test_a_client_that_takes_its_answer_slowly_is_not_closed(
    app: FastAPI, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes some in each span of patience, and several of them for the whole."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.4)
    large = b"x" * (16 << 20)
    with answering(app, large), line_to(client) as line:
        line.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        taken = 0
        while part := line.recv(1 << 20):
            taken += len(part)
            time.sleep(0.06)
        assert taken > len(large)


@contextmanager
def answering(app: FastAPI, answer: bytes | Callable[[Request], Awaitable[Response]]) -> Iterator[None]:
    """`GET /large` answers so; bytes are written in one piece."""

    async def whole(_: Request) -> Response:
        assert isinstance(answer, bytes)
        return Response(answer)

    route = Route("/large", whole if isinstance(answer, bytes) else answer)
    app.router.routes.insert(0, route)
    try:
        yield
    finally:
        app.router.routes.remove(route)


def test_who_is_answered_makes_no_room(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, database: None) -> None:
    """All connections are busy: the new one is closed, and they are not."""
    from tests.app.api.conftest import add_job, end_job, start_job

    job = add_job()
    claim = start_job(job)
    with begun(client, "GET", "prefer: wait=20\r\n", path=f"/v1/jobs/{job}") as busy:
        time.sleep(0.3)
        monkeypatch.setattr(settings(), "max_connections", 1)
        with line_to(client) as line:
            line.sendall(HALF_A_HEAD)
            assert everything(line) == b""
        monkeypatch.setattr(settings(), "max_connections", 2000)
        end_job(claim)
        assert busy.recv(100).startswith(b"HTTP/1.1 200")


def test_fewer_connections_are_held_where_files_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_connections() <= settings().max_connections
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert most_connections() == 1024 - OTHER_FILES


def test_a_shortage_of_files_is_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    try:
        quiet(loop)
        with caplog.at_level(logging.WARNING):
            for _ in range(2000):
                shortage = OSError(errno.EMFILE, "Too many open files")
                context = {"message": "socket.accept() out of system resource", "exception": shortage}
                loop.call_exception_handler(context)
            assert len(caplog.records) <= 1
            loop.call_exception_handler({"message": "something else", "exception": ValueError("strange")})
        assert "something else" in caplog.text
        assert "Traceback" not in caplog.records[0].getMessage()
    finally:
        loop.close()


def test_connections_that_are_gone_are_forgotten(client: httpx.Client) -> None:
    def waiting() -> int:
        return sum(len(server.new) + len(server.served) for server in connections._waiting.values())

    before = waiting()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(line_to(client)).sendall(HALF_A_HEAD)
        wait_for(lambda: waiting() >= before + 5, 5)
    wait_for(lambda: waiting() <= before, 5)
