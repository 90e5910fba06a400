"""A submission under a key is one job, however often it is sent; and not more jobs are queued than may be."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text

from app import db
from app.data import builtins
from app.db import transaction
from app.settings import settings
from app.tables import Job
from tests.app.api.conftest import add_job, api_process, end_job, pointers, problem, start_job, wait_for

LIGHT = {"kind": "light", "steps": 3}
KEY = {"idempotency-key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}


def submit(client: httpx.Client, body: Any = LIGHT, **headers: str) -> httpx.Response:
    return client.post("/v1/jobs", json=body, headers=headers)


def stored() -> int:
    with transaction() as session:
        return session.execute(select(func.count()).select_from(Job)).scalar_one()


# --- keys ------------------------------------------------------------------------------------------------------------


def test_the_same_key_again_is_the_same_job(client: httpx.Client) -> None:
    first, again = submit(client, **KEY), submit(client, **KEY)
    assert (first.status_code, again.status_code) == (202, 202)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == first.json()
    assert stored() == 1
    assert submit(client, **{"idempotency-key": "another"}).json()["id"] != first.json()["id"]
    assert submit(client).json()["id"] != submit(client).json()["id"]


def test_a_key_with_another_body_is_refused_and_names_the_job(client: httpx.Client) -> None:
    first = submit(client, **KEY).json()["id"]
    body = problem(submit(client, {**LIGHT, "steps": 4}, **KEY), 422, "idempotency_key_reused")
    assert first in body["detail"]
    assert stored() == 1


@pytest.mark.parametrize(
    "written",
    ['{"steps":3,"kind":"light"}', '{ "kind" : "light",\n "steps": 3 }', '{"kind": "\\u006cight", "steps": 3}'],
)
def test_bodies_are_compared_as_data(client: httpx.Client, written: str) -> None:
    first = submit(client, **KEY).json()["id"]
    again = client.post("/v1/jobs", content=written, headers={**KEY, "content-type": "application/json"})
    assert again.json()["id"] == first


def test_a_job_that_has_ended_is_still_its_keys_answer(client: httpx.Client) -> None:
    first = submit(client, **KEY).json()["id"]
    end_job(start_job(first))
    again = submit(client, **KEY)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, first, "succeeded")


def test_a_key_lives_as_long_as_its_job(client: httpx.Client) -> None:
    first = submit(client, **KEY).json()["id"]
    end_job(start_job(first))
    assert client.delete(f"/v1/jobs/{first}").status_code == 204
    again = submit(client, {**LIGHT, "steps": 4}, **KEY)
    assert again.status_code == 202
    assert "idempotent-replayed" not in again.headers


def test_a_body_with_faults_leaves_the_key_free(client: httpx.Client) -> None:
    problem(submit(client, {**LIGHT, "stesp": 4}, **KEY), 422, "invalid")
    answer = client.post("/v1/jobs", content=b'{"kind": NaN}', headers={**KEY, "content-type": "application/json"})
    problem(answer, 400, "malformed_body")
    assert submit(client, **KEY).status_code == 202
    assert stored() == 1


@pytest.mark.parametrize("keys", [[""], ["a b"], ["a\tb"], ["a" * 256], ["schlüssel"], ["a", "b"], ["a", "a"]], ids=str)
def test_what_is_no_key_is_refused(client: httpx.Client, keys: list[str]) -> None:
    headers = [(b"content-type", b"application/json"), *((b"idempotency-key", key.encode()) for key in keys)]
    body = problem(client.post("/v1/jobs", content=json.dumps(LIGHT), headers=headers), 422, "invalid_parameter")
    assert pointers(body) == {"/header/idempotency-key"}
    assert stored() == 0


def test_a_repeated_submission_waits_as_the_first_one_would(client: httpx.Client) -> None:
    first = submit(client, **KEY).json()["id"]
    claim = start_job(first)
    ending = threading.Timer(0.5, end_job, [claim])
    ending.start()
    again = submit(client, **KEY, prefer="wait=20")
    ending.join()
    assert again.json()["state"] == "succeeded"
    assert (again.headers["idempotent-replayed"], again.headers["preference-applied"]) == ("true", "wait=20")


@pytest.mark.slow
def test_a_thousand_submissions_at_once_under_one_key_are_one_job(client: httpx.Client) -> None:
    """64 connections; each tenth submission has another body. Whichever comes first, one job is made and its body wins."""
    lines = httpx.Client(base_url=client.base_url, timeout=60, trust_env=False, limits=httpx.Limits(max_connections=64))

    def send(number: int) -> tuple[int, str, str]:
        answer = submit(lines, {**LIGHT, "steps": 4 if number % 10 == 9 else 3}, **KEY)
        body = answer.json()
        return answer.status_code, body.get("id", body.get("code")), answer.headers.get("idempotent-replayed", "")

    with lines, ThreadPoolExecutor(64) as pool:
        answers = Counter(pool.map(send, range(1000)))
    assert stored() == 1
    with transaction() as session:
        job = session.scalars(select(Job)).one()
    same = 900 if job.spec["steps"] == 3 else 100
    assert answers == {
        (202, job.id, ""): 1,
        (202, job.id, "true"): same - 1,
        (422, "idempotency_key_reused", ""): 1000 - same,
    }


def test_a_client_whose_answer_was_lost_finds_its_job_by_the_key(client: httpx.Client) -> None:
    """The broker takes the connection and says nothing, so the API hangs between commit and answer, and is killed there."""
    lost: list[Exception] = []

    def send(address: str) -> None:
        try:
            httpx.post(f"{address}/v1/jobs", json=LIGHT, headers=KEY, timeout=60, trust_env=False)
        except httpx.TransportError as error:
            lost.append(error)

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        api_process(BROKER_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as (port, process),
    ):
        sending = threading.Thread(target=send, args=[f"http://127.0.0.1:{port}"])
        sending.start()
        wait_for(lambda: stored() == 1, 30)
        process.send_signal(signal.SIGKILL)
        sending.join(30)
    assert lost, "the answer was not lost"
    again = submit(client, **KEY)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["state"] == "queued"
    assert stored() == 1


# --- the limit of the queue ------------------------------------------------------------------------------------------


@pytest.fixture
def room_for_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "max_queued", 3)


def test_a_full_queue_refuses_and_says_when_to_come_again(client: httpx.Client, room_for_three: None) -> None:
    made = [submit(client).json()["id"] for _ in range(3)]
    answer = submit(client)
    body = problem(answer, 429, "queue_full")
    assert "BEQUEST_MAX_QUEUED" in body["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert stored() == 3
    assert client.post("/v1/jobs/validate", json=LIGHT).status_code == 200
    client.post(f"/v1/jobs/{made[0]}/cancel")
    assert submit(client).status_code == 202


def test_jobs_that_run_or_have_ended_take_no_room(client: httpx.Client, room_for_three: None) -> None:
    end_job(start_job(add_job()))
    start_job(add_job())
    assert [submit(client).status_code for _ in range(4)] == [202, 202, 202, 429]


def test_a_full_queue_still_answers_a_known_key(client: httpx.Client, room_for_three: None) -> None:
    first = submit(client, **KEY).json()["id"]
    submit(client), submit(client)
    assert submit(client, **KEY).json()["id"] == first
    problem(submit(client, **{"idempotency-key": "new"}), 429, "queue_full")


def test_submissions_at_once_exceed_the_limit_by_no_more_than_run_at_once(
    client: httpx.Client, room_for_three: None
) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = Counter(pool.map(lambda _: submit(client).status_code, range(64)))
    assert set(codes) == {202, 429}
    assert codes[202] == stored()
    assert 3 <= stored() <= 3 + 7


def test_the_count_of_the_queue_is_answered_by_its_index(database: None) -> None:
    """Ended jobs, however many, cost a submission nothing."""
    with transaction() as session:
        columns = "id, kind, spec, resolved_spec, state, max_seconds, max_attempts"
        row = "'job_' || n, 'light', '{}', '{}', 'queued', 60, 3"
        session.execute(text(f"INSERT INTO jobs ({columns}) SELECT {row} FROM generate_series(1, 3000) n"))
        session.execute(text("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE id <> 'job_7'"))
    with transaction() as session:
        session.connection().exec_driver_sql("ANALYZE jobs")
        plan = session.execute(
            text("EXPLAIN SELECT count(*) FROM (SELECT id FROM jobs WHERE state = 'queued' LIMIT 1000) AS waiting")
        ).scalars()
        assert "jobs_runnable" in "\n".join(plan)


def test_rows_of_a_built_in_data_set_are_made_before_a_transaction_begins(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of faces take seconds to draw: on a slow machine longer than a transaction may be idle."""
    here, held, begin = threading.local(), list[bool](), db.transaction
    wine = builtins.BUILTINS["wine"]

    @contextmanager
    def watched() -> Iterator[Any]:
        with begin() as session:
            here.within = True
            yield session
        here.within = False

    def make() -> Any:
        held.append(getattr(here, "within", False))
        return wine.make()

    monkeypatch.setattr(db, "transaction", watched)
    monkeypatch.setitem(builtins.BUILTINS, "wine", replace(wine, make=make))
    body = {"kind": "transfer", "dataset": "wine", "source": {"train": {"dataset": "wine"}}}
    for path in ("/v1/jobs/validate", "/v1/jobs"):
        builtins._load.cache_clear()
        assert client.post(path, json=body).status_code in (200, 202)
    assert held == [False, False]
