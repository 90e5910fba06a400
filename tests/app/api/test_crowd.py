"""More requests at once than may be: what is refused, what never is, and what does not count."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from app.api.crowd import Crowd
from app.db import transaction
from app.errors import Problem
from app.settings import settings
from tests.app.api.conftest import add_job, end_job, problem, start_job, wait_for

LIGHT = {"kind": "light", "steps": 3}


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(settings(), "max_requests", 4)
    return 4


@contextmanager
def stuck(client: httpx.Client, count: int) -> Iterator[list[Future[httpx.Response]]]:
    """So many submissions that wait for the table of jobs until the end of the block."""
    with ThreadPoolExecutor(count) as pool, transaction() as session:
        session.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        sent = [pool.submit(client.post, "/v1/jobs", json=LIGHT) for _ in range(count)]
        wait_for(lambda: _waiting() >= count, 10)
        yield sent


def _waiting() -> int:
    """How many wait for a lock; in a transaction of its own, since within one Postgres looks but once."""
    with transaction() as session:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return int(session.execute(query).scalar() or 0)


def test_what_is_too_much_is_refused_and_the_rest_is_answered(client: httpx.Client, most: int) -> None:
    with stuck(client, most) as sent:
        refused = client.post("/v1/jobs", json=LIGHT)
        problem(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        problem(client.get("/v1/catalog"), 429, "overloaded")
        assert client.get("/healthz").status_code == 200, "busy is not dead"
    assert [answer.result().status_code for answer in sent] == [202] * most
    assert client.post("/v1/jobs", json=LIGHT).status_code == 202
    with transaction() as session:
        assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == most + 1, "what was refused left nothing"


def test_reads_make_room_for_writes(client: httpx.Client, most: int) -> None:
    with stuck(client, most // 2) as sent:
        problem(client.get("/v1/catalog"), 429, "overloaded")
        assert client.post("/v1/jobs/validate", json={}).status_code == 422, "a write is still heard"
    assert [answer.result().status_code for answer in sent] == [202] * (most // 2)


def test_who_waits_for_a_change_takes_no_room(client: httpx.Client, most: int) -> None:
    job = add_job()
    claim = start_job(job)
    with ThreadPoolExecutor(2 * most) as pool:
        headers = {"prefer": "wait=20"}
        held = [pool.submit(client.get, f"/v1/jobs/{job}", headers=headers) for _ in range(2 * most)]
        refused = 0
        began = time.monotonic()
        while time.monotonic() < began + 0.5:
            refused += client.get(f"/v1/jobs/{job}").status_code == 429
        end_job(claim)
        answers = [answer.result() for answer in held]
    states = [answer.json()["state"] for answer in answers if answer.status_code == 200]
    assert states == ["succeeded"] * len(states)
    assert len(states) >= most // 2, "more than that may have come in one moment"
    assert refused <= most, "once they are held, there is room"


def test_who_sends_slowly_takes_no_room(client: httpx.Client, most: int) -> None:
    address = urlsplit(str(client.base_url))
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    lines = [socket.create_connection((address.hostname or "", address.port or 80), 10) for _ in range(2 * most)]
    try:
        for line in lines:
            line.sendall(head.encode())
        time.sleep(0.3)
        assert client.get("/v1/catalog").status_code == 200
    finally:
        for line in lines:
            line.close()


def test_a_place_is_left_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order: an answer that begins while the request is aside, an error within, a second leave."""
    monkeypatch.setattr(settings(), "max_requests", 1)
    crowd = Crowd()
    place = crowd.admit({"method": "POST", "path": "/v1/jobs", "state": {}})
    with pytest.raises(Problem, match="1 requests"):
        crowd.admit({"method": "POST", "path": "/v1/jobs", "state": {}})
    with pytest.raises(ValueError), place.aside():  # noqa: PT011, PT012 - which, is all the same
        assert crowd.size == 0
        raise ValueError
    assert crowd.size == 1
    place.leave()
    place.leave()
    with place.aside():
        assert crowd.size == 0
    assert crowd.size == 0


def test_places_are_given_back_whatever_happens(client: httpx.Client, most: int) -> None:
    """Refusals, errors, replays, clients that hang up: afterwards as many requests fit in as before."""
    address = urlsplit(str(client.base_url))
    for _ in range(2 * most):
        client.get("/nowhere")
        client.post("/v1/jobs", content=b"{", headers={"content-type": "application/json"})
        client.get("/v1/jobs", headers={"host": "evil.example"})
        with socket.create_connection((address.hostname or "", address.port or 80), 10) as line:
            line.sendall(f"GET /v1/jobs HTTP/1.1\r\nhost: {address.netloc}\r\n\r\n".encode())
    time.sleep(0.3)  # until those that hung up are seen to have gone
    with stuck(client, most) as sent:
        pass
    assert [answer.result().status_code for answer in sent] == [202] * most
