"""More requests at once than may be: what is refused, what never is, and what does not count."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psycopg
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import text

from app import api, db
from app.api import deps
from app.api.admission import Admission
from app.db import transaction
from app.errors import Problem
from app.settings import settings
from tests.app.api.conftest import add_job, begun, end_job, problem, start_job, wait_for

LIGHT = {"kind": "light", "steps": 3}


@pytest.fixture
def admission(app: FastAPI) -> Admission:
    made: Admission = app.state.admission
    return made


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(settings(), "max_requests", 4)
    return 4


@contextmanager
def stuck(
    client: httpx.Client, admission: Admission, count: int, reads: Sequence[str] = ()
) -> Iterator[list[Future[httpx.Response]]]:
    """So many submissions, or of these reads by turns, that wait for the table of jobs until the end of the block."""
    with ThreadPoolExecutor(count) as pool, psycopg.connect(db.url()) as holder:
        holder.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        if reads:
            sent = [pool.submit(client.get, reads[number % len(reads)]) for number in range(count)]
        else:
            sent = [pool.submit(client.post, "/v1/jobs", json=LIGHT) for _ in range(count)]
        wait_for(lambda: admission.in_flight == count, 10)
        yield sent
        holder.rollback()


def test_what_is_too_much_is_refused_and_the_rest_is_answered(
    client: httpx.Client, admission: Admission, most: int
) -> None:
    with stuck(client, admission, most) as sent:
        refused = client.post("/v1/jobs", json=LIGHT)
        problem(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        problem(client.get("/v1/catalog"), 429, "overloaded")
    assert [answer.result().status_code for answer in sent] == [202] * most
    assert client.post("/v1/jobs", json=LIGHT).status_code == 202
    with transaction() as session:
        assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == most + 1, "what was refused left nothing"


def test_busy_is_not_dead(client: httpx.Client, admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every thread and every connection taken; of readiness the answer may be no."""
    monkeypatch.setattr(settings(), "max_requests", 50)
    with stuck(client, admission, 50) as sent:
        assert client.get("/healthz", timeout=5).status_code == 200
    assert {answer.result().status_code for answer in sent} == {202}


def test_more_reads_than_threads_and_connections_are_all_answered(
    client: httpx.Client, admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a path returned is checked in another thread, which those that wait for a connection must not all hold."""
    monkeypatch.setattr(settings(), "max_requests", 2 * 90)
    job = add_job()
    reads = ["/v1/jobs", f"/v1/jobs/{job}/attempts", f"/v1/jobs/{job}/artifacts"]
    with stuck(client, admission, 90, reads) as sent:
        assert client.get("/healthz").status_code == 200
    assert {answer.result().status_code for answer in sent} == {200}


def test_fewer_sessions_are_open_than_there_are_connections() -> None:
    """The test above hangs without it only where threads and connections are taken in the one order."""
    (depends,) = deps.InTransaction.__metadata__
    pool = db.engine().pool
    assert depends.max_concurrency < pool.size() + pool._max_overflow  # type: ignore[attr-defined]


def test_nothing_is_waited_for_once_a_session_is_held() -> None:
    for module in pkgutil.iter_modules(api.__path__, "app.api."):
        for route in getattr(importlib.import_module(module.name), "router", APIRouter()).routes:
            needed = [part.call for part in route.dependant.dependencies]
            assert db.get_session not in needed[:-1], f"{route.path}: the session's place is behind all others"


def test_reads_and_predictions_make_room_for_writes(client: httpx.Client, admission: Admission, most: int) -> None:
    with stuck(client, admission, most // 2) as sent:
        problem(client.get("/v1/catalog"), 429, "overloaded")
        problem(client.post("/v1/models/job:x/predict", json={"inputs": [1]}), 429, "overloaded")
        assert client.post("/v1/jobs/validate", json={}).status_code == 422, "a write is still heard"
    assert [answer.result().status_code for answer in sent] == [202] * (most // 2)


def test_who_waits_for_a_change_takes_no_room(
    client: httpx.Client, app: FastAPI, admission: Admission, most: int
) -> None:
    job = add_job()
    claim = start_job(job)
    with ThreadPoolExecutor(2 * most) as pool:
        held = []
        for _ in range(2 * most):  # one by one: in one moment they would be too many
            held.append(pool.submit(client.get, f"/v1/jobs/{job}", headers={"prefer": "wait=20"}))
            wait_for(lambda: (admission.in_flight, app.state.changes.watches) == (0, len(held)), 10)
        assert client.get(f"/v1/jobs/{job}").status_code == 200
        end_job(claim)
        answers = [answer.result() for answer in held]
    assert [answer.json()["state"] for answer in answers] == ["succeeded"] * (2 * most)


def test_who_sends_slowly_takes_no_room(client: httpx.Client, most: int) -> None:
    with slowly(client, "/v1/jobs", 2 * most):
        assert client.get("/v1/catalog").status_code == 200


def test_who_sends_slowly_holds_no_session(client: httpx.Client) -> None:
    with slowly(client, "/v1/jobs/job_00000000000000000000000000000000/cancel", 40):
        assert client.get("/v1/jobs", timeout=5).status_code == 200


@contextmanager
def slowly(client: httpx.Client, path: str, count: int) -> Iterator[None]:
    """So many requests whose bodies have only begun to come, until the end of the block."""
    head = "content-type: application/json\r\ncontent-length: 100\r\n"
    lines = [begun(client, "POST", head, "{", path) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for line in lines:
            line.close()


def test_a_slot_is_left_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order: an answer that begins while the request is aside, asides within each other, a second leave."""
    monkeypatch.setattr(settings(), "max_requests", 1)
    admission = Admission()
    scope = {"method": "POST", "path": "/v1/jobs", "state": {}}
    slot = admission.admit(scope)
    with pytest.raises(Problem, match="1 requests"):
        admission.admit(scope)
    with slot.aside():
        with slot.aside():
            assert admission.in_flight == 0
        assert admission.in_flight == 0
    assert admission.in_flight == 1
    with slot.aside():
        slot.leave()
    assert admission.in_flight == 0
    slot.leave()
    with slot.aside():
        assert admission.in_flight == 0
    assert admission.in_flight == 0


def test_slots_are_given_back_whatever_happens(client: httpx.Client, admission: Admission, most: int) -> None:
    """Refusals, errors, streams, clients that hang up before, within and after the body, or while they wait."""
    job = add_job()
    start_job(job)
    form = "content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\n"
    for _ in range(most):
        client.get("/nowhere")
        client.post("/v1/jobs", content=b"{", headers={"content-type": "application/json"})
        client.get("/v1/jobs", headers={"host": "evil.example"})
        for line in (
            begun(client, "GET"),
            begun(client, "POST", "content-type: application/json\r\ncontent-length: 1000\r\n", "{"),
            begun(client, "POST", form, "--x\r\n", "/v1/datasets"),
            begun(client, "GET", "accept: text/event-stream\r\n", path=f"/v1/jobs/{job}/events"),
            begun(client, "GET", "prefer: wait=20\r\n", path=f"/v1/jobs/{job}"),
        ):
            time.sleep(0.05)
            line.close()
    wait_for(lambda: admission.in_flight == 0, 10)
