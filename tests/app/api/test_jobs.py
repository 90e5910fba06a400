"""/v1/jobs as clients meet it: shape, pages, conditional and waiting reads, cancel, delete."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest

from app import jobs
from app.api.deps import prefer_wait
from app.db import transaction
from app.settings import settings
from tests.app.api.conftest import add_job, end_job, note, pointers, problem, start_job

WORDS = [
    "id",
    "kind",
    "name",
    "state",
    "stage",
    "reason",
    "created_at",
    "queued_at",
    "started_at",
    "finished_at",
    "attempt",
    "queue_position",
    "progress",
    "latest",
    "best",
    "model",
    "error",
    "spec",
    "resolved_spec",
    "dataset",
    "seed",
    "environment",
    "usage",
    "parent",
    "tags",
    "metadata",
    "links",
]


def test_a_job_has_every_word_of_its_shape(client: httpx.Client) -> None:
    job = add_job(name="first", tags=["a", "b"], datasets=[{"ref": "digits", "id": "digits", "sha256": "00"}])
    body = client.get(f"/v1/jobs/{job}").json()
    assert set(WORDS) <= set(body)
    assert (body["id"], body["state"], body["queue_position"], body["tags"]) == (job, "queued", 0, ["a", "b"])
    assert body["dataset"] == {"id": "digits", "sha256": "00"}
    assert body["created_at"].endswith("Z")
    for link in body["links"].values():
        assert client.get(link, headers={"accept": "application/json"}).status_code != 404 or link.endswith(
            ("report", ".zip", "cancel", "pause", "resume")
        )


def test_a_failed_job_says_why_in_closed_words(client: httpx.Client) -> None:
    job = add_job()
    end_job(start_job(job), "failed")
    body = client.get(f"/v1/jobs/{job}").json()
    assert body["state"] == "failed"
    assert body["error"]["code"] == "internal"
    assert set(body["error"]) == {"code", "message", "hint", "blame", "retryable", "stage", "param"}


def test_pages_follow_their_cursor_to_the_end_and_repeat_nothing(client: httpx.Client) -> None:
    made = [add_job(name=f"n{number}") for number in range(7)]
    seen: list[str] = []
    url = "/v1/jobs?limit=3"
    while url:
        answer = client.get(url)
        seen += [job["id"] for job in answer.json()["data"]]
        url = answer.links.get("next", {}).get("url", "")
        assert bool(url) == (answer.json()["next_cursor"] is not None)
    assert seen == made[::-1]


def test_filters_combine_and_stay_on_the_next_page(client: httpx.Client) -> None:
    wanted = [add_job(tags=["x"], kind="distillation") for _ in range(3)]
    add_job(tags=["x"], kind="transfer")
    add_job(tags=["y"], kind="distillation")
    first = client.get("/v1/jobs", params={"tag": "x", "kind": "distillation", "state": "queued", "limit": 2})
    second = client.get(first.links["next"]["url"])
    assert [job["id"] for answer in (first, second) for job in answer.json()["data"]] == wanted[::-1]
    assert client.get("/v1/jobs", params={"state": "running"}).json()["data"] == []
    assert client.get("/v1/jobs", params={"name": "nobody"}).json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=201", "/query/limit"),
        ("limit=x", "/query/limit"),
        ("cursor=zzz", "/query/cursor"),
        ("cursor=%00", "/query/cursor"),
        ("state=done", "/query/state"),
        ("name=%00", "/query/name"),
        ("tag=", "/query/tag"),
        ("stat=queued", "/query/stat"),
    ],
)
def test_a_wrong_parameter_is_named(client: httpx.Client, query: str, pointer: str) -> None:
    body = problem(client.get(f"/v1/jobs?{query}"), 422, "invalid_parameter")
    assert pointers(body) == {pointer}


def test_a_parameter_that_does_not_exist_is_met_with_the_nearest(client: httpx.Client) -> None:
    body = problem(client.get("/v1/jobs?stat=queued"), 422, "invalid_parameter")
    assert body["errors"][0]["hint"] == "did you mean 'state'?"


@pytest.mark.parametrize(
    "job", ["job_0", "x", "%00", "job_%ED%A0%80", "..%2f..%2fetc%2fpasswd", "é", "a" * 5000, "'; --"]
)
def test_an_id_that_is_none_is_404_whatever_it_holds(client: httpx.Client, job: str) -> None:
    problem(client.get(f"/v1/jobs/{job}"), 404, "not_found")


def test_an_unchanged_job_is_304_and_a_changed_one_is_not(client: httpx.Client) -> None:
    job = add_job()
    etag = client.get(f"/v1/jobs/{job}").headers["etag"]
    same = client.get(f"/v1/jobs/{job}", headers={"if-none-match": f'"other", W/{etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    start_job(job)
    assert client.get(f"/v1/jobs/{job}", headers={"if-none-match": etag}).status_code == 200


def test_a_waiting_read_returns_when_the_state_changes(client: httpx.Client) -> None:
    job = add_job()
    threading.Timer(0.5, start_job, [job]).start()
    began = time.monotonic()
    answer = client.get(f"/v1/jobs/{job}", headers={"prefer": "respond-async, wait=10"})
    assert answer.json()["state"] == "running"
    assert answer.headers["preference-applied"] == "wait=10"
    assert 0.3 < time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("preference", "seconds"),
    [
        ("wait=5", 5),
        ('WAIT = "7"', 7),
        ("respond-async, wait=10; x=1", 10),
        ("wait=61", 60),
        ("wait=" + "9" * 100, 0),
        ("wait=12abc", 0),
        ("await=5", 0),
        (None, 0),
    ],
)
def test_a_wait_is_understood_whole_or_not_at_all(preference: str | None, seconds: float) -> None:
    assert asyncio.run(prefer_wait(preference)) == seconds


def test_a_waiting_read_with_an_etag_returns_at_any_change(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    etag = client.get(f"/v1/jobs/{job}").headers["etag"]

    def progress() -> None:
        with transaction() as session:
            jobs.note_progress(session, claim, {"step": 1}, {"loss": 0.5})

    threading.Timer(0.3, progress).start()
    answer = client.get(f"/v1/jobs/{job}", headers={"prefer": "wait=10", "if-none-match": etag})
    assert answer.json()["progress"] == {"step": 1}


def test_a_wait_ends_in_time_and_at_once_for_a_finished_job(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    began = time.monotonic()
    assert client.get(f"/v1/jobs/{job}", headers={"prefer": "wait=1"}).json()["state"] == "running"
    assert 0.9 < time.monotonic() - began < 2.5
    end_job(claim)
    began = time.monotonic()
    client.get(f"/v1/jobs/{job}", headers={"prefer": "wait=30"})
    assert time.monotonic() - began < 2


def test_cancelling_twice_is_202_then_200_and_after_another_end_409(client: httpx.Client) -> None:
    queued, running = add_job(), add_job(priority=9)
    assert client.post(f"/v1/jobs/{queued}/cancel").status_code == 202
    again = client.post(f"/v1/jobs/{queued}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    claim = start_job(running)
    asked = client.post(f"/v1/jobs/{running}/cancel", json={"discard": True})
    assert (asked.status_code, asked.json()["state"], asked.json()["wanted"]) == (202, "running", "cancel")
    assert client.post(f"/v1/jobs/{running}/cancel").status_code == 200
    end_job(claim)
    problem(client.post(f"/v1/jobs/{running}/cancel"), 409, "conflict")


def test_pause_and_resume_are_202_when_they_change_something_200_when_not_and_409_at_the_end(
    client: httpx.Client,
) -> None:
    def post(job: str, verb: str) -> tuple[int, str, str | None, str | None]:
        answer = client.post(f"/v1/jobs/{job}/{verb}")
        body = answer.json()
        return answer.status_code, body["state"], body["wanted"], body["waits_for"]

    job = add_job()
    assert post(job, "pause") == (202, "paused", None, "resume")
    assert post(job, "pause") == (200, "paused", None, "resume")
    assert client.get("/v1/jobs", params={"state": "paused"}).json()["data"][0]["id"] == job
    problem(client.delete(f"/v1/jobs/{job}"), 409, "conflict")
    assert post(job, "resume") == (202, "queued", None, "no_worker")
    assert post(job, "resume") == (200, "queued", None, "no_worker")
    claim = start_job(job)
    assert post(job, "pause") == (202, "running", "pause", None)
    assert post(job, "pause") == (200, "running", "pause", None)
    assert post(job, "resume") == (202, "running", None, None)
    assert post(job, "resume") == (200, "running", None, None)
    end_job(claim)
    for verb in ("pause", "resume"):
        problem(client.post(f"/v1/jobs/{job}/{verb}"), 409, "conflict")
        problem(client.post(f"/v1/jobs/job_0/{verb}"), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"discard": "yes"}, "/discard"), ({"discrad": True}, "/discrad"), ({"discard": 1}, "/discard")],
)
def test_a_wrong_cancel_body_is_named_and_cancels_nothing(
    client: httpx.Client, body: dict[str, object], pointer: str
) -> None:
    job = add_job()
    assert pointers(problem(client.post(f"/v1/jobs/{job}/cancel", json=body), 422, "invalid")) == {pointer}
    problem(
        client.post(f"/v1/jobs/{job}/cancel", content=b"[1]", headers={"content-type": "application/json"}),
        422,
        "invalid",
    )
    assert client.get(f"/v1/jobs/{job}").json()["state"] == "queued"


def test_only_a_finished_job_can_be_deleted(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    note(claim, epoch=1)
    body = problem(client.delete(f"/v1/jobs/{job}"), 409, "conflict")
    assert "running" in body["detail"]
    end_job(claim)
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    problem(client.get(f"/v1/jobs/{job}"), 404, "not_found")
    problem(client.delete(f"/v1/jobs/{job}"), 404, "not_found")


def test_a_submit_can_wait_for_the_end(client: httpx.Client) -> None:
    def work() -> None:
        deadline = time.monotonic() + 10
        while (claim := jobs.claim("worker-1")) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert claim is not None
        end_job(claim)

    worker = threading.Thread(target=work)
    worker.start()
    answer = client.post("/v1/jobs", json={"kind": "light"}, headers={"prefer": "wait=15"})
    worker.join()
    assert (answer.status_code, answer.json()["state"]) == (202, "succeeded")
    assert answer.headers["preference-applied"] == "wait=15"


def test_a_submit_wakes_a_worker_only_after_it_is_durable(client: httpx.Client, broker_url: str) -> None:
    from redis import Redis

    assert client.post("/v1/jobs", json={"kind": "light", "name": "a"}).status_code == 202
    client.post("/v1/jobs", json={"kind": "light", "nmae": "b"})
    with Redis.from_url(broker_url) as broker:
        assert broker.llen("bequest.wake") == 1
    assert [job["name"] for job in client.get("/v1/jobs").json()["data"]] == ["a"]


def test_a_job_is_submitted_though_the_broker_is_dead(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from app import queue

    monkeypatch.setattr(settings(), "broker_url", "redis://127.0.0.1:9/0")
    monkeypatch.setattr(queue, "_asleep_until", [0.0])
    queue._sender.cache_clear()
    request.addfinalizer(queue._sender.cache_clear)
    began = time.monotonic()
    assert client.post("/v1/jobs", json={"kind": "light"}).status_code == 202
    assert time.monotonic() - began < 3
