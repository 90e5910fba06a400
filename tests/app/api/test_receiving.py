"""Bodies on their way: each has its time, all together their room, and those that dawdle make room for others."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import Message

from app.api import receiving
from app.errors import Problem
from app.settings import settings
from tests.app.api.conftest import begun, everything, problem, wait_for

FORM = "content-type: multipart/form-data; boundary=x\r\n"
PART = '--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'


def json_begun(client: httpx.Client, length: int, sent: int = 1) -> socket.socket:
    """A submission that says it has so many bytes, and sends some of them."""
    head = f"content-type: application/json\r\ncontent-length: {length}\r\n"
    return begun(client, "POST", head, "{" + " " * (sent - 1))


def held(app: FastAPI) -> int:
    """Bytes of bodies of all kinds."""
    return sum(kind.held for kind in app.state.receiving.kinds)


def status(line: socket.socket) -> int:
    return int(line.recv(65536)[9:12])


def test_a_body_that_stops_is_answered_and_closed(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "PIECE_SECONDS", 0.3)
    with json_begun(client, 100) as line:
        said = everything(line)  # and then closes: what may still come is no request
    assert said.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in said


def test_a_body_that_trickles_is_answered_as_well(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "PIECE_SECONDS", 0.3)
    head = "content-type: application/json\r\ntransfer-encoding: chunked\r\n"
    with begun(client, "POST", head) as line:
        with suppress(ConnectionError):
            for _ in range(20):
                time.sleep(0.06)
                line.sendall(b"1\r\n \r\n")
        assert status(line) == 408


def test_a_body_that_comes_piece_by_piece_is_taken(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the patience for one piece in all."""
    monkeypatch.setattr(receiving, "PIECE_SECONDS", 0.5)
    pieces = 4
    with json_begun(client, pieces * receiving.PIECE_BYTES - 1024) as line:
        for number in range(pieces):
            time.sleep(0.3)
            more = receiving.PIECE_BYTES if number < pieces - 1 else receiving.PIECE_BYTES - 1024 - 2
            line.sendall(b" " * more if number < pieces - 1 else b" " * more + b"}")
        assert status(line) == 422, "read to its end, and refused for what it says"


def test_bodies_take_no_more_than_their_room(
    client: httpx.Client, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "PRESSED_SECONDS", 30.0)
    monkeypatch.setattr(settings(), "max_bodies_bytes", 400_000)
    with json_begun(client, 200_001, 200_000), json_begun(client, 190_001, 190_000):
        wait_for(lambda: held(app) == 390_000, 20)
        body = problem(client.post("/v1/jobs", json={"name": " " * 20_000}), 429, "overloaded")
        assert "BEQUEST_MAX_BODIES_BYTES" in body["detail"]
        assert client.post("/v1/jobs", json={}).status_code == 422, "there is room for a small one"
    wait_for(lambda: client.post("/v1/jobs", json={"name": " " * 20_000}).status_code == 422, 5)


def test_chunked_bodies_take_no_more_than_their_room(
    client: httpx.Client, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "PRESSED_SECONDS", 30.0)
    monkeypatch.setattr(settings(), "max_bodies_bytes", 300_000)
    head = "content-type: application/json\r\ntransfer-encoding: chunked\r\n"
    with json_begun(client, 250_001, 250_000), begun(client, "POST", head) as line:
        wait_for(lambda: held(app) == 250_000, 20)
        line.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert status(line) == 429


def test_a_body_that_dawdles_makes_room(client: httpx.Client, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has stood still longest, and no other."""
    monkeypatch.setattr(settings(), "max_bodies_bytes", 400_000)
    monkeypatch.setattr(receiving, "PRESSED_SECONDS", 0.3)
    with json_begun(client, 200_001, 200_000) as first:
        wait_for(lambda: held(app) == 200_000, 20)
        time.sleep(0.5)
        with json_begun(client, 199_001, 199_000) as second:
            wait_for(lambda: held(app) == 399_000, 20)
            time.sleep(0.5)
            assert client.post("/v1/jobs", json={"name": " " * 20_000}).status_code == 422
            assert status(first) == 408
            second.settimeout(0.2)
            with pytest.raises(TimeoutError):
                second.recv(100)


def test_predictions_and_submissions_have_rooms_of_their_own(
    client: httpx.Client, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_predict_bytes", 100_000)
    monkeypatch.setattr(settings(), "max_bodies_bytes", 100_000)
    head = "content-type: application/json\r\ncontent-length: 100000\r\n"
    monkeypatch.setattr("app.api.models._model", lambda _ref: None)
    with begun(client, "POST", head, "{" + " " * 99_998, "/v1/models/job:job_00000000000000000000000000000000/predict"):
        wait_for(lambda: held(app) == 99_999, 20)
        problem(
            client.post("/v1/models/job:job_00000000000000000000000000000000/predict", json={"inputs": [1]}),
            429,
            "overloaded",
        )
        assert client.post("/v1/jobs", json={}).status_code == 422


def test_uploads_on_their_way_lie_below_the_data_folder(client: httpx.Client) -> None:
    """And take memory for a piece each only."""
    with ExitStack() as stack:
        for _ in range(3):
            line = begun(client, "POST", f"{FORM}content-length: 5000000\r\n", PART, "/v1/datasets")
            stack.enter_context(line).sendall(b"a,b\n" * 50_000)
        folder = str(settings().store / "tmp")
        wait_for(lambda: len(_open_below(folder)) >= 3, 10)
    wait_for(lambda: not _open_below(folder), 10)


def _open_below(folder: str) -> list[str]:
    """This process's open files below a folder, those without a name too."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(folder):
            found.append(target)
    return found


def test_uploads_take_no_more_than_their_room(
    client: httpx.Client, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_upload_bytes", 1_000_000)
    monkeypatch.setattr(settings(), "max_uploads_bytes", 1_500_000)
    with begun(client, "POST", f"{FORM}content-length: 1000000\r\n", PART + "1,2\n" * 200_000, "/v1/datasets"):
        wait_for(lambda: held(app) > 800_000, 20)
        answer = client.post("/v1/datasets", files={"file": ("a.csv", b"a,y\n" + b"1,2\n" * 200_000)})
        body = problem(answer, 429, "overloaded")
        assert "BEQUEST_MAX_UPLOADS_BYTES" in body["detail"]


def test_what_is_only_announced_takes_no_room(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a few clients that send slowly would keep all others out for hours."""
    monkeypatch.setattr(settings(), "max_uploads_bytes", settings().max_upload_bytes)
    slow: list[socket.socket] = []
    with ExitStack() as stack:
        for _ in range(4):
            head = f"{FORM}content-length: {settings().max_upload_bytes}\r\n"
            slow.append(stack.enter_context(begun(client, "POST", head, PART, "/v1/datasets")))
        time.sleep(0.2)
        answer = client.post("/v1/datasets", files={"file": ("a.csv", b"a,y\n" + b"1,2\n" * 50)})
        assert answer.status_code == 422, "it is read, and has too few classes"
        for line in slow:
            line.settimeout(0.1)
            with pytest.raises(TimeoutError):
                line.recv(100)  # no refusal has come


def test_a_body_that_dawdles_makes_no_room_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it held would be subtracted once more when it leaves, and the account be wrong for good."""
    monkeypatch.setattr(settings(), "max_bodies_bytes", 200_000)
    monkeypatch.setattr(settings(), "max_body_bytes", 200_000)
    monkeypatch.setattr(receiving, "PRESSED_SECONDS", 0.0)

    async def bodies() -> int:
        kind = receiving.BodyBudgets().kinds[2]
        dawdling, other = (receiving.Body(kind, Headers({"transfer-encoding": "chunked"})) for _ in range(2))
        pieces = iter([(60_000, False), (100_000, True), (receiving.PIECE_BYTES - 1, True)])

        async def receive() -> Message:
            await asyncio.sleep(0.01)
            size, more = next(pieces)
            return {"type": "http.request", "body": b"x" * size, "more_body": more}

        await other.received(receive, lambda: False)()
        await dawdling.received(receive, lambda: False)()
        with pytest.raises(Problem) as refused:
            await dawdling.received(receive, lambda: False)()
        assert refused.value.code == "overloaded"
        dawdling.leave()
        other.leave()
        return kind.held

    assert asyncio.run(bodies()) == 0


def test_the_room_is_given_back_whatever_happens(client: httpx.Client, app: FastAPI) -> None:
    room = app.state.receiving
    for _ in range(3):
        client.post("/v1/jobs", json={})
        client.post("/v1/jobs", content=b"{", headers={"content-type": "text/plain"})
        client.post("/v1/jobs", content=b" " * 300_000, headers={"content-type": "application/json"})
        client.post("/v1/datasets", files={"file": ("a.csv", b"")})
        client.request("GET", "/v1/jobs", content=b"{}")
        for line in (
            json_begun(client, 1000),
            begun(client, "POST", f"{FORM}content-length: 1000\r\n", PART, "/v1/datasets"),
            begun(client, "POST", f"{FORM}content-length: 1000\r\n", PART, "/nowhere"),
        ):
            time.sleep(0.05)
            line.close()
    wait_for(lambda: not any(kind.held or kind.coming for kind in room.kinds), 10)
