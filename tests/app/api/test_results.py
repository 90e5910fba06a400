"""Metrics, logs, report, attempts: what a job leaves behind as it runs."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest

from app import jobs, metrics
from app.db import transaction
from app.jobs import Claim
from app.settings import settings
from tests.app.api.artifacts import keep
from tests.app.api.conftest import add_job, end_job, problem, start_job


def record(claim: Claim, rows: list[tuple[int, dict[str, float | None]]]) -> None:
    with transaction() as session:
        metrics.record(session, claim.job_id, claim.attempt, rows)


def test_metrics_share_one_ascending_axis_with_null_where_there_is_none(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    record(
        claim,
        [
            (20, {"loss": 0.5}),
            (10, {"loss": 1.0, "source/loss": 3.0}),
            (30, {"loss": float("nan"), "val_accuracy": 0.9}),
        ],
    )
    assert client.get(f"/v1/jobs/{job}/metrics").json() == {
        "step": [10, 20, 30],
        "series": {"loss": [1.0, 0.5, None], "source/loss": [3.0, None, None], "val_accuracy": [None, None, 0.9]},
    }
    named = client.get(f"/v1/jobs/{job}/metrics", params={"names": "source/loss, nothing"}).json()
    assert named == {"step": [10], "series": {"source/loss": [3.0]}}


def test_a_name_that_a_spreadsheet_would_run_is_exported_as_text(client: httpx.Client) -> None:
    job = add_job()
    names = ["=cmd()", "+1", "-1", "@a", "loss"]
    record(start_job(job), [(1, dict.fromkeys(names, -2.0))])
    table = client.get(f"/v1/jobs/{job}/metrics", headers={"accept": "text/csv"}).text
    header, values = (line.split(",") for line in table.splitlines())
    assert sorted(header) == sorted(["step", "'=cmd()", "'+1", "'-1", "'@a", "loss"])
    assert values == ["1", *["-2.0"] * 5]


def test_metrics_are_thinned_on_the_server_ends_kept(client: httpx.Client) -> None:
    job = add_job()
    record(start_job(job), [(step, {"loss": float(step)}) for step in range(100)])
    steps = client.get(f"/v1/jobs/{job}/metrics", params={"max_points": 10}).json()["step"]
    assert (steps[0], steps[-1]) == (0, 99)
    assert 8 <= len(steps) <= 10
    problem(client.get(f"/v1/jobs/{job}/metrics", params={"max_points": 0}), 422, "invalid_parameter")


def test_metrics_are_csv_for_those_who_accept_it(client: httpx.Client) -> None:
    job = add_job()
    record(start_job(job), [(1, {"loss": 0.25}), (2, {"loss": None, "a,b": 1.0})])
    answer = client.get(f"/v1/jobs/{job}/metrics", headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text == 'step,loss,"a,b"\n1,0.25,\n2,,1.0\n'


def test_a_job_without_metrics_has_an_empty_axis_and_none_that_is_not_there_404(client: httpx.Client) -> None:
    assert client.get(f"/v1/jobs/{add_job()}/metrics").json() == {"step": [], "series": {}}
    for part in ("metrics", "logs", "report", "attempts", "artifacts", "artifacts.zip", "events"):
        problem(client.get(f"/v1/jobs/job_0/{part}"), 404, "not_found")


def test_the_log_s_last_lines_come_without_secrets(client: httpx.Client) -> None:
    job = add_job()
    start_job(job)
    folder = settings().jobs_dir / job
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_bytes(b"one\nredis://bequest:hunter2@localhost/0\n\xff three")
    assert (
        client.get(f"/v1/jobs/{job}/logs", params={"tail": 2}).text == "redis://bequest:***@localhost/0\n\ufffd three"
    )
    assert client.get(f"/v1/jobs/{job}/logs", params={"tail": 0}).text == ""
    problem(client.get(f"/v1/jobs/{job}/logs", params={"tail": -1}), 422, "invalid_parameter")


def test_the_log_of_a_job_that_has_not_begun_is_empty(client: httpx.Client) -> None:
    answer = client.get(f"/v1/jobs/{add_job()}/logs")
    assert (answer.status_code, answer.text) == (200, "")


def test_the_log_of_a_job_that_waits_for_its_next_attempt_is_the_one_in_its_folder(client: httpx.Client) -> None:
    job = add_job()
    claim = start_job(job)
    log = settings().jobs_dir / job / "trainer.log"
    log.parent.mkdir(parents=True)
    log.write_text("the first attempt\n")
    with transaction() as session:
        jobs.requeue(session, claim, outcome="drained", charge=False)
    assert client.get(f"/v1/jobs/{job}").json()["state"] == "queued"
    assert client.get(f"/v1/jobs/{job}/logs").text == "the first attempt\n"
    shutil.rmtree(log.parent)


def test_a_followed_log_ends_with_its_job_and_misses_nothing(client: httpx.Client, tmp_path: Path) -> None:
    job = add_job()
    claim = start_job(job)
    log = settings().jobs_dir / job / "trainer.log"
    log.parent.mkdir(parents=True)
    lines = [f"line {number} with ünïcode\n" for number in range(200)]

    def work() -> None:
        for number in range(0, 200, 20):
            with log.open("ab") as file:
                file.write("".join(lines[number : number + 20]).encode())
            time.sleep(0.05)
        keep(claim, tmp_path, "trainer.log", log.read_bytes())
        end_job(claim)
        shutil.rmtree(log.parent)

    worker = threading.Thread(target=work)
    worker.start()
    with client.stream("GET", f"/v1/jobs/{job}/logs", params={"follow": True, "tail": 10_000}) as answer:
        text = "".join(answer.iter_text())
    worker.join()
    assert text == "".join(lines)


def test_a_report_is_404_until_there_is_one(client: httpx.Client, tmp_path: Path) -> None:
    job = add_job()
    body = problem(client.get(f"/v1/jobs/{job}/report"), 404, "report_not_ready")
    assert "queued" in body["detail"]
    claim = start_job(job)
    report = {"decision": "helped", "reason": None}
    sha256 = keep(claim, tmp_path, "report.json", json.dumps(report).encode())
    end_job(claim)
    answer = client.get(f"/v1/jobs/{job}/report")
    assert answer.json() == report
    assert answer.headers["etag"] == f'"{sha256}"'
    assert client.get(f"/v1/jobs/{job}/report", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_attempts_say_why_each_ended(client: httpx.Client) -> None:
    job = add_job()
    first = start_job(job)
    with transaction() as session:
        jobs.requeue(session, first, outcome="drained", charge=False)
    end_job(start_job(job))
    attempts = client.get(f"/v1/jobs/{job}/attempts").json()["data"]
    assert [(attempt["attempt"], attempt["outcome"]) for attempt in attempts] == [(1, "drained"), (2, "succeeded")]
    assert all(attempt["ended_at"] >= attempt["started_at"] for attempt in attempts)


@pytest.mark.parametrize("accept", ["text/csv;q=0", "*/*", "application/json, text/csv;q=0.0", ""])
def test_csv_is_for_those_alone_who_name_it(client: httpx.Client, accept: str) -> None:
    answer = client.get(f"/v1/jobs/{add_job()}/metrics", headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"
