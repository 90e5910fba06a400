"""Events: numbered, resumable, nothing lost or repeated; a stream ends with its job."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app import jobs
from app.db import transaction
from app.settings import settings
from tests.app.api.conftest import add_job, end_job, note, problem, start_job

STREAM = {"accept": "text/event-stream"}


def read(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream; a comment is {"comment": …}."""
    event: dict[str, Any] = {}
    for line in lines:
        if not line:
            if event:
                yield event
            event = {}
        else:
            name, _, value = line.partition(":")
            event[name or "comment"] = value.strip()


def follow(client: httpx.Client, job: str, **headers: str) -> list[dict[str, Any]]:
    with client.stream("GET", f"/v1/jobs/{job}/events", headers={**STREAM, **headers}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [event for event in read(answer.iter_lines()) if "data" in event]


def test_events_as_json_come_in_pages_that_continue(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    for epoch in range(4):
        note(claim, epoch=epoch)
    first = client.get(f"/v1/jobs/{job}/events", params={"limit": 3}).json()
    assert [event["id"] for event in first["data"]] == [1, 2, 3]
    rest = client.get(f"/v1/jobs/{job}/events", params={"after": first["next_after"]}).json()
    assert [event["id"] for event in rest["data"]] == [4, 5]
    assert [event["data"].get("epoch") for event in first["data"] + rest["data"]] == [None, 0, 1, 2, 3]
    assert rest["next_after"] == 5
    end_job(claim)
    assert client.get(f"/v1/jobs/{job}/events", params={"after": 5}).json()["next_after"] is None


def test_a_stream_brings_what_was_and_what_comes_and_ends_with_the_job(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)

    def work() -> None:
        for epoch in range(20):
            note(claim, epoch=epoch)
            time.sleep(0.02)
        end_job(claim)

    worker = threading.Thread(target=work)
    worker.start()
    events = follow(client, job)
    worker.join()
    assert [int(event["id"]) for event in events] == list(range(1, 23))
    assert events[-1]["event"] == "state"
    assert json.loads(events[-1]["data"])["data"]["state"] == "succeeded"


def test_an_event_reaches_an_open_stream_at_once(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    delays = []
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
        events = (event for event in read(answer.iter_lines()) if "id" in event)
        next(events)
        for epoch in range(5):
            time.sleep(0.1)
            began = time.monotonic()
            note(claim, epoch=epoch)
            next(events)
            delays.append(time.monotonic() - began)
    # Woken by the notification: the poll alone would take half a second on average.
    assert sorted(delays)[2] < 0.3


def test_a_stream_cut_anywhere_resumes_with_nothing_lost_or_repeated(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)

    def work() -> None:
        for epoch in range(60):
            note(claim, epoch=epoch)
            time.sleep(0.005)
        end_job(claim)

    worker = threading.Thread(target=work)
    worker.start()
    seen: list[int] = []
    for _ in range(100):
        headers = {**STREAM, "last-event-id": str(seen[-1] if seen else 0)}
        with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
            if answer.status_code == 204:
                break
            for event in read(answer.iter_lines()):
                if "id" in event:
                    seen.append(int(event["id"]))
                    if len(seen) % 7 == 0:
                        break
    worker.join()
    assert seen == list(range(1, 63))


def test_beyond_the_last_event_of_a_finished_job_the_answer_is_204(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    end_job(claim)
    last = follow(client, job)[-1]["id"]
    assert client.get(f"/v1/jobs/{job}/events", headers={**STREAM, "last-event-id": last}).status_code == 204
    assert client.get(f"/v1/jobs/{job}/events", headers=STREAM, params={"after": last}).status_code == 204


def test_progress_has_no_number_and_comes_at_most_once_a_second(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)

    def work() -> None:
        for step in range(22):
            with transaction() as session:
                jobs.note_progress(
                    session, claim, {"step": step, "steps": 22, "fraction": step / 22}, {"loss": 1 / (step + 1)}
                )
            time.sleep(0.1)
        end_job(claim)

    worker = threading.Thread(target=work)
    worker.start()
    events = follow(client, job)
    worker.join()
    progress = [event for event in events if event["event"] == "progress"]
    assert 1 <= len(progress) <= 4
    assert all("id" not in event for event in progress)
    assert json.loads(progress[-1]["data"])["latest"]["loss"] > 0
    assert [int(event["id"]) for event in events if "id" in event] == [1, 2]


def test_a_last_event_id_that_is_none_is_refused(client: httpx.Client) -> None:
    job = add_job()
    for given in ("x", "-1", "1.5", "9" * 30, "0" * 20 + "9" * 30, "9" * 5000, str(2**63)):
        body = problem(
            client.get(f"/v1/jobs/{job}/events", headers={**STREAM, "last-event-id": given}), 422, "invalid_parameter"
        )
        assert body["errors"][0]["pointer"] == "/header/last-event-id"


def test_a_job_deleted_while_followed_ends_the_stream(client: httpx.Client) -> None:
    job = add_job()
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
        lines = answer.iter_lines()
        next(lines)
        with transaction() as session:
            jobs.cancel(session, job)
        list(lines)
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    problem(client.get(f"/v1/jobs/{job}/events", headers=STREAM), 404, "not_found")


def test_a_silent_stream_shows_that_it_lives(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.events.HEARTBEAT_SECONDS", 0.5)
    job = add_job()
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
        seen = next(event for event in read(answer.iter_lines()) if "comment" in event)
    assert "id" not in seen


def test_many_streams_of_one_job_all_see_everything(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    with ThreadPoolExecutor(20) as pool:
        following = [pool.submit(follow, client, job) for _ in range(20)]
        for epoch in range(30):
            note(claim, epoch=epoch)
        end_job(claim)
        for stream in following:
            assert [int(event["id"]) for event in stream.result() if "id" in event] == list(range(1, 33))


def test_not_more_streams_are_open_than_may_be(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further stream is refused; a further long poll is answered at once; those that are open go on."""
    monkeypatch.setattr(settings(), "max_streams", 2)
    job = add_job()
    claim = start_job(job)
    path = f"/v1/jobs/{job}/events"
    with client.stream("GET", path, headers=STREAM) as one, client.stream("GET", path, headers=STREAM) as other:
        lines = one.iter_lines(), other.iter_lines()
        for stream in lines:
            next(stream)
        refused = client.get(path, headers=STREAM)
        problem(refused, 429, "too_many_streams")
        assert int(refused.headers["retry-after"]) > 0
        problem(client.get(f"/v1/jobs/{job}/logs?follow=true"), 429, "too_many_streams")
        at_once = client.get(f"/v1/jobs/{job}", headers={"prefer": "wait=60"})
        assert at_once.status_code == 200
        assert "preference-applied" not in at_once.headers
        end_job(claim)
        assert all("succeeded" in "".join(stream) for stream in lines)
    assert client.get(path, headers=STREAM).status_code == 200
