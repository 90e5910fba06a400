"""Every way in which an attempt can end, with a real trainer process each time."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import artifacts, assignments, events, jobs, metrics, models
from app.db import transaction
from app.errors import NotFound
from app.settings import settings
from app.spec.lookup import Missing
from tests.worker.conftest import event_types, metric_steps, outcomes, read, run, steps_done, submit, wait_for
from worker import machine, supervisor
from worker.lease_watchdog import now
from worker.trainers import Trainers

pytestmark = pytest.mark.usefixtures("database")


def soon(job_id: str, steps: int, action: Any) -> threading.Thread:
    """Does `action` from another thread once the job has recorded so many steps."""

    def wait_and_do() -> None:
        wait_for(lambda: steps_done(job_id) >= steps)
        action()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


def cancel(job_id: str, discard: bool = False) -> None:
    with transaction() as session:
        jobs.cancel(session, job_id, discard)


def ask(verb: str, job_id: str) -> None:
    with transaction() as session:
        getattr(jobs, verb)(session, job_id)


def names(job_id: str) -> set[str]:
    with transaction() as session:
        return {artifact.name for artifact in artifacts.of_job(session, job_id)}


def roles(job_id: str) -> list[str]:
    with transaction() as session:
        return [model.role for model in models.of_job(session, job_id)]


def test_success_keeps_models_files_and_log_and_says_so_last(trainers: Trainers) -> None:
    job_id = submit(steps=12, source_steps=3)
    assert run(trainers) == "succeeded"
    job = read(job_id)
    assert (job.state, job.reason, job.attempt, job.failures) == ("succeeded", "completed", 1, 0)
    assert job.best == {"metric": "val_count", "value": 12.0, "step": 12}
    assert job.usage is not None
    assert job.usage["device_seconds"] > 0
    assert names(job_id) == {
        "model.keras", "manifest.json", "source.keras", "source.manifest.json", "report.json", "trainer.log",
    }  # fmt: skip
    assert roles(job_id) == ["source", "model"]
    with transaction() as session:
        assert models.get(session, f"job:{job_id}").id == job.model_id
        for artifact in artifacts.of_job(session, job_id):
            assert artifacts.blob(artifact.sha256).stat().st_size == artifact.bytes
    assert metric_steps(job_id) == list(range(1, 13))
    assert metric_steps(job_id, "source/loss") == [1, 2, 3]
    kinds = event_types(job_id)
    assert kinds[-1] == "state"
    assert kinds.count("stage") == 2
    assert "checkpoint" in kinds
    assert job.progress is not None
    assert job.progress["fraction"] == 1
    assert not (settings().jobs_dir / job_id).exists()


def test_a_failure_that_a_retry_cannot_mend_ends_the_job_with_its_log(trainers: Trainers) -> None:
    job_id = submit(behave="fail", at=3)
    assert run(trainers) == "failed"
    job = read(job_id)
    assert job.error is not None
    assert (job.reason, job.error["code"], job.error["blame"]) == ("loss_not_finite", "loss_not_finite", "user")
    assert job.error["param"] == "/training"
    assert job.error["hint"]
    with transaction() as session:
        log = artifacts.get(session, job_id, "trainer.log")
    assert b"Failure" in artifacts.blob(log.sha256).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behave", "outcome"),
    [("retry", "disk_full"), *((way, "crashed") for way in ("crash", "segfault", "nonsense", "forge"))],
)
def test_another_attempt_follows_what_it_may_mend_and_goes_on_from_the_checkpoint(
    trainers: Trainers, behave: str, outcome: str
) -> None:
    job_id = submit(behave=behave, at=7, until_attempt=1, steps=12, checkpoint_every=5)
    assert run(trainers) == "queued"
    job = read(job_id)
    assert (job.state, job.reason, job.failures) == ("queued", outcome, 1)
    goes_on = behave in ("nonsense", "forge")  # until the worker has read what it said
    last = max(metric_steps(job_id))
    assert last >= 7 if goes_on else last == 7
    assert job.run_after > job.queued_at, "a pause before the next attempt"
    wait_for(lambda: run(trainers) == "succeeded")
    assert metric_steps(job_id) == list(range(1, 13))
    assert outcomes(job_id) == [outcome, "succeeded"]
    with transaction() as session:
        assert jobs.attempts(session, job_id)[1].resumed == {"target": 5}


def test_a_trainer_that_ends_well_has_not_succeeded_when_a_file_of_its_could_not_be_kept(trainers: Trainers) -> None:
    job_id = submit(behave="forge", steps=3, at=2, step_seconds=0, until_attempt=1)
    assert run(trainers) == "queued"
    assert read(job_id).reason == "crashed"
    assert "passwd" not in names(job_id)


def test_the_budget_of_attempts_is_the_end_with_the_last_error(trainers: Trainers) -> None:
    job_id = submit(behave="crash", max_attempts=1)
    assert run(trainers) == "failed"
    job = read(job_id)
    assert job.error is not None
    assert (job.reason, job.error["code"], job.error["blame"]) == ("attempts_spent", "internal", "system")
    assert "1 of 1 attempts" in job.error["message"]
    assert "trainer.log" in names(job_id)


def test_a_kept_stage_is_not_trained_again(trainers: Trainers) -> None:
    job_id = submit(source_steps=4, behave="crash", until_attempt=1, max_attempts=2)
    assert run(trainers) == "queued"
    assert roles(job_id) == ["source"]
    wait_for(lambda: run(trainers) == "succeeded")
    with transaction() as session:
        stages = [event.data["stage"] for event in events.after(session, job_id) if event.type == "stage"]
    assert stages == ["source", "target", "target"]


def test_a_cancel_saves_a_checkpoint_and_keeps_what_is_finished(trainers: Trainers) -> None:
    job_id = submit(steps=5000, source_steps=2)
    waiting = soon(job_id, 6, lambda: cancel(job_id))
    assert run(trainers) == "cancelled"
    waiting.join()
    job = read(job_id)
    assert (job.state, job.reason, job.wanted) == ("cancelled", "cancelled_by_client", None)
    assert roles(job_id) == ["source", "unfinished"]
    assert event_types(job_id)[-4:] == ["checkpoint", "model", "resources.released", "state"]
    with transaction() as session:
        unfinished = models.get(session, f"job:{job_id}")
        assert (unfinished.role, unfinished.id) == ("unfinished", job.model_id)
        assert models.get(session, f"job:{job_id}/unfinished").id == job.model_id
    assert {"unfinished.keras", "unfinished.manifest.json", "trainer.log"} <= names(job_id)


def test_a_trainer_deaf_to_a_cancel_is_killed_after_its_grace(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "grace_seconds", 0.5)
    job_id = submit(steps=5000, behave="hang", at=2)
    asked: list[float] = []
    waiting = soon(job_id, 2, lambda: (asked.append(time.monotonic()), cancel(job_id)))
    assert run(trainers) == "cancelled"
    ended = time.monotonic()
    waiting.join()
    assert ended - asked[0] < 10


def test_a_cancel_that_discards_does_not_wait(trainers: Trainers) -> None:
    job_id = submit(steps=5000, behave="hang", at=2)
    asked: list[float] = []
    waiting = soon(job_id, 2, lambda: (asked.append(time.monotonic()), cancel(job_id, discard=True)))
    assert run(trainers) == "cancelled"
    ended = time.monotonic()
    waiting.join()
    assert ended - asked[0] < 5
    assert read(job_id).model_id is None


@pytest.mark.slow
def test_a_drain_gives_the_job_back_without_charge(trainers: Trainers) -> None:
    job_id = submit(steps=600)
    assert run(trainers, lambda: steps_done(job_id) >= 8) == "queued"
    assert names(job_id) == {"unfinished.keras", "unfinished.manifest.json"}, "a requeued attempt stores no log"
    assert (settings().jobs_dir / job_id / "trainer.log").is_file()
    job = read(job_id)
    assert (job.state, job.reason, job.failures, job.attempt) == ("queued", "drained", 0, 1)
    assert run(trainers) == "succeeded"
    assert metric_steps(job_id) == list(range(1, 601))
    with transaction() as session:
        resumed = jobs.attempts(session, job_id)[1].resumed
    assert resumed is not None
    assert resumed["target"] >= 8


def test_a_drain_waits_no_longer_than_the_grace_for_a_trainer_that_is_deaf(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "grace_seconds", 1.0)
    job_id = submit(steps=5000, behave="deaf", at=2, max_attempts=1)
    told: list[float] = []

    def draining() -> bool:
        if not told and steps_done(job_id) >= 4:
            told.append(time.monotonic())
        return bool(told)

    assert run(trainers, draining) == "queued"
    assert time.monotonic() - told[0] < 1.0 + 5.0
    assert (read(job_id).reason, read(job_id).failures) == ("drained", 0)


def test_a_pause_frees_the_worker_and_a_resume_goes_on_where_it_was(trainers: Trainers) -> None:
    job_id = submit(steps=600, max_attempts=1)
    waiting = soon(job_id, 8, lambda: ask("pause", job_id))
    assert run(trainers) == "paused"
    waiting.join()
    job = read(job_id)
    assert (job.state, job.reason, job.failures, job.wanted) == ("paused", "paused_by_client", 0, None)
    assert (settings().jobs_dir / job_id / "trainer.log").is_file()
    assert "trainer.log" not in names(job_id)
    assert jobs.claim("worker-1") is None
    ask("resume", job_id)
    assert run(trainers) == "succeeded"
    assert metric_steps(job_id) == list(range(1, 601))
    assert outcomes(job_id) == ["paused", "succeeded"]
    with transaction() as session:
        resumed = jobs.attempts(session, job_id)[1].resumed
    assert resumed is not None
    assert resumed["target"] >= 8
    assert roles(job_id) == ["model"], "its own model takes the unfinished one's place"
    assert not [name for name in names(job_id) if name.startswith("unfinished")]


@pytest.mark.slow
def test_a_pause_taken_back_after_the_trainer_was_told_to_stop_costs_nothing(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "grace_seconds", 3.0)
    job_id = submit(steps=400, checkpoint_every=1000, behave="linger", max_attempts=1)

    def pause_then_resume() -> None:
        ask("pause", job_id)
        wait_for(lambda: "checkpoint" in event_types(job_id), what="the trainer to have been stopped")
        ask("resume", job_id)

    waiting = soon(job_id, 5, pause_then_resume)
    assert run(trainers) == "queued"
    waiting.join()
    job = read(job_id)
    assert (job.state, job.reason, job.failures) == ("queued", "resumed_by_client", 0)
    assert outcomes(job_id) == ["paused"]


@pytest.mark.slow
@pytest.mark.parametrize("discard", [False, True])
def test_a_cancel_during_a_pause_is_a_cancel(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch, discard: bool
) -> None:
    monkeypatch.setattr(settings(), "grace_seconds", 4.0)
    job_id = submit(steps=5000, source_steps=2, checkpoint_every=10_000, behave="linger")

    def pause_then_cancel() -> None:
        ask("pause", job_id)
        wait_for(lambda: event_types(job_id).count("checkpoint") == 2, what="the trainer to have been stopped")
        cancel(job_id, discard)

    waiting = soon(job_id, 4, pause_then_cancel)
    assert run(trainers) == "cancelled"
    waiting.join()
    assert roles(job_id) == ([] if discard else ["source", "unfinished"])
    assert "trainer.log" in names(job_id)
    assert ("unfinished.keras" in names(job_id)) is not discard


@pytest.mark.slow
def test_a_cancel_that_no_beat_has_brought_keeps_what_is_finished(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "beat_seconds", 2.4)
    job_id = submit(steps=12, source_steps=2, behave="crash", at=9, step_seconds=0.1)
    waiting = soon(job_id, 4, lambda: cancel(job_id))
    assert run(trainers) == "cancelled"
    waiting.join()
    assert roles(job_id) == ["source"]
    assert {"source.keras", "trainer.log"} <= names(job_id)


@pytest.mark.parametrize(
    ("behave", "discard", "ending", "kept"),
    [
        ("well", True, "cancelled", []),
        ("fail", True, "cancelled", []),
        ("well", False, "succeeded", ["source", "model"]),
        ("fail", False, "failed", ["source"]),
    ],
)
def test_a_discard_counts_though_the_trainer_ends_before_a_beat_has_brought_it(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch, behave: str, discard: bool, ending: str, kept: list[str]
) -> None:
    real, unasked = jobs.heartbeat, jobs.Heartbeat(wanted=None, discard=False)
    monkeypatch.setattr(jobs, "heartbeat", lambda claim: real(claim) and unasked)
    job_id = submit(steps=3, source_steps=2, behave=behave)
    assert run(trainers, lambda: bool(cancel(job_id, discard))) == ending
    assert roles(job_id) == kept
    assert ("model.keras" in names(job_id)) is ("model" in kept)
    assert "trainer.log" in names(job_id)
    if discard:
        assert released(job_id) == dict(jobs.HELD_NOTHING)


@pytest.mark.slow
def test_every_pause_replaces_the_unfinished_model_and_its_bytes(trainers: Trainers) -> None:
    job_id = submit(steps=5000, name="slow")
    seen = []
    for _ in range(2):
        waiting = soon(job_id, steps_done(job_id) + 20, lambda: ask("pause", job_id))
        assert run(trainers) == "paused"
        waiting.join()
        with transaction() as session:
            model = models.get(session, f"job:{job_id}/unfinished")
            assert artifacts.get(session, job_id, "unfinished.keras").sha256 == model.sha256
        assert roles(job_id) == ["unfinished"]
        with transaction() as session, pytest.raises(NotFound, match="paused"):
            models.get(session, f"job:{job_id}")
        with transaction() as session, pytest.raises(Missing, match="replaced when its job goes on"):
            assignments.DatabaseLookup(session).manifest(model.id)
        seen.append(model.sha256)
        ask("resume", job_id)
    with transaction() as session:
        assert assignments.assignment(session, jobs.get(session, job_id))["kept"] == {}
    assert [artifacts.blob(sha256).exists() for sha256 in seen] == [False, True]
    cancel(job_id)
    assert read(job_id).model_id is not None, "what a paused job had learnt outlives its cancel"
    with transaction() as session:
        jobs.delete(session, job_id)
    assert not artifacts.blob(seen[1]).exists()


def test_what_an_earlier_attempt_has_left_does_not_count_against_the_next(trainers: Trainers) -> None:
    job_id = submit(steps=10)
    home = settings().jobs_dir / job_id
    (home / "out-0" / "tmp").mkdir(parents=True)
    found: list[str] = []
    waiting = soon(job_id, 1, lambda: found.extend(sorted(path.name for path in home.glob("out-*"))))
    assert run(trainers) == "succeeded"
    waiting.join()
    assert found == ["out-1"]


def released(job_id: str) -> dict[str, Any]:
    """The receipt of a cancelled job: its event before the last."""
    with transaction() as session:
        *_, receipt, last = events.after(session, job_id)
    assert (receipt.type, last.type, last.data["state"]) == ("resources.released", "state", "cancelled")
    return receipt.data


@pytest.mark.parametrize("discard", [False, True])
def test_a_cancel_ends_with_a_receipt_of_what_it_has_set_free(trainers: Trainers, discard: bool) -> None:
    job_id = submit(steps=5000, behave="breed", at=2)
    family: list[int] = []

    def look_then_cancel() -> None:
        busy = max((machine.process_tree(pid) for pid in machine.process_tree(os.getpid())[1:]), key=len)
        family.extend(busy)
        cancel(job_id, discard)

    waiting = soon(job_id, 4, look_then_cancel)
    assert run(trainers) == "cancelled"
    waiting.join()
    receipt = released(job_id)
    assert len(family) >= 5, "the trainer, its guard and three children of its own"
    assert receipt["pid"] == family[0]
    assert receipt["gone"] is True
    assert receipt["device_memory"]["before_bytes"] > 2**20
    assert receipt["device_memory"]["after_bytes"] == 0
    assert 0 <= receipt["milliseconds"] < 30_000
    wait_for(lambda: not any(machine.process_tree(pid) for pid in family), 5)


def test_the_cancel_of_a_job_without_a_process_has_a_receipt_too(trainers: Trainers) -> None:
    job_id = submit()
    cancel(job_id)
    assert released(job_id) == dict(jobs.HELD_NOTHING)


def test_the_time_limit_is_a_failure_of_the_request(trainers: Trainers) -> None:
    job_id = submit(steps=5000, max_seconds=1)
    assert run(trainers) == "failed"
    job = read(job_id)
    assert job.error is not None
    assert (job.reason, job.error["blame"]) == ("time_limit", "user")
    assert roles(job_id) == ["unfinished"]
    assert job.model_id is not None


def test_a_lost_job_is_not_written_to(trainers: Trainers) -> None:
    job_id = submit(steps=5000)

    def steal() -> None:
        with transaction() as session:
            session.execute(text("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = :id"), {"id": job_id})
        wait_for(lambda: jobs.sweep().requeued)  # a sweep passes by a row that is being written

    waiting = soon(job_id, 5, steal)
    assert run(trainers) == "lost"
    waiting.join()
    before = read(job_id)
    assert (before.state, before.reason) == ("queued", "worker_lost")
    assert "trainer.log" not in names(job_id)


def test_values_that_are_not_finite_are_null_with_one_warning(trainers: Trainers) -> None:
    job_id = submit(behave="nan", steps=6)
    assert run(trainers) == "succeeded"
    with transaction() as session:
        steps, series = metrics.series(session, job_id, ["val_loss"])
    assert (steps, series) == ([1, 2, 3, 4, 5, 6], {"val_loss": [None] * 6})
    assert event_types(job_id).count("warning") == 1


def test_many_metrics_are_all_recorded_once(trainers: Trainers) -> None:
    job_id = submit(steps=300, values=20, step_seconds=0, checkpoint_every=100)
    assert run(trainers) == "succeeded"
    assert steps_done(job_id) == 300 * 20


def test_the_trainer_sees_no_address_and_no_password(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "hunter2")
    monkeypatch.setenv("TF_SECRET", "hunter2")
    trainers.close()
    job_id = submit(behave="spy", steps=1)
    assert run(trainers) == "succeeded"
    with transaction() as session:
        seen = json.loads(artifacts.blob(artifacts.get(session, job_id, "seen.json").sha256).read_bytes())
    environment = seen["environment"]
    assert "hunter2" not in json.dumps(environment)
    assert not {"DATABASE_URL", "BROKER_URL", "INFERENCE_URL", "BEQUEST_DATA"} & set(environment)
    assert not [value for value in environment.values() if "://" in value]
    assert environment["BEQUEST_PLUGINS"] == "tests.plugins"


def test_a_database_away_for_a_moment_costs_nothing(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = submit(steps=60)
    away_until = time.monotonic() + 1.5
    real_beat, real_fence = jobs.heartbeat, jobs.fence

    def away(call: Any) -> Any:
        def maybe(*arguments: Any) -> Any:
            if time.monotonic() < away_until:
                raise OperationalError("select", {}, Exception("away"))
            return call(*arguments)

        return maybe

    claim = jobs.claim("worker-1")
    assert claim is not None
    monkeypatch.setattr(supervisor.jobs, "heartbeat", away(real_beat))
    first = [True]

    def fence_after_start(*arguments: Any) -> Any:
        if first[0]:
            first[0] = False
            return real_fence(*arguments)
        return away(real_fence)(*arguments)

    monkeypatch.setattr(supervisor.jobs, "fence", fence_after_start)
    assert supervisor.run(claim, now(), trainers, lambda: False) == "succeeded"
    assert metric_steps(job_id) == list(range(1, 61))
