"""What an attempt may take: each limit is met by a real trainer that breaks it, and told apart from all others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app import jobs
from app.db import transaction
from app.settings import settings
from app.tables import Job
from tests.worker.conftest import metric_steps, outcomes, read, run, submit
from worker import attempt_limits, machine, reports
from worker import trainers as trainer_processes
from worker.attempt_limits import Limits
from worker.trainers import Trainers

pytestmark = pytest.mark.usefixtures("database")


def failed_with(job_id: str, code: str, words: str) -> Job:
    job = read(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert (job.reason, job.error["code"], job.error["blame"], job.error["retryable"]) == (code, code, "user", False)
    assert words in job.error["message"]
    assert f"BEQUEST_MAX_{words_of[code]}" in job.error["hint"]
    return job


words_of = {"memory_limit": "MEMORY_BYTES", "disk_limit": "JOB_BYTES", "metric_limit": "METRIC_ROWS"}


def test_a_trainer_that_fills_memory_is_killed_for_good(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "max_memory_bytes", 300 * 2**20)
    job_id = submit(behave="hog", at=3)
    assert run(trainers) == "failed"
    failed_with(job_id, "memory_limit", "300 are allowed")
    assert metric_steps(job_id) == [1, 2, 3]


def test_a_job_that_fills_the_disk_is_killed_for_good(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "max_job_bytes", 50 * 2**20)
    monkeypatch.setattr(attempt_limits, "_DISK_EVERY", 0.1)
    job_id = submit(behave="fill", at=3)
    assert run(trainers) == "failed"
    failed_with(job_id, "disk_limit", "50 are allowed")
    assert not (settings().jobs_dir / job_id).exists()


def test_more_metric_rows_than_a_job_may_have(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "max_metric_rows", 5_000)
    job_id = submit(behave="flood", at=3)
    assert run(trainers) == "failed"
    failed_with(job_id, "metric_limit", "5000 are allowed")


def test_the_rows_of_earlier_attempts_count(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "max_metric_rows", 100)
    job_id = submit(steps=60, checkpoint_every=60, source_steps=50, step_seconds=0.02, behave="crash", at=30)
    assert run(trainers) == "queued"
    monkeypatch.setattr(settings(), "max_metric_rows", 70)
    wait_until_runnable(job_id)
    assert run(trainers) == "failed"
    assert read(job_id).reason == "metric_limit"


def wait_until_runnable(job_id: str) -> None:
    with transaction() as session:
        jobs.get(session, job_id).run_after = jobs.get(session, job_id).created_at


@pytest.mark.parametrize("behave", ["hang", "chatter"])
def test_a_trainer_that_makes_no_step_has_stalled_whatever_it_says(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch, behave: str
) -> None:
    # Twice as long until the first step: a trainer has to have started by then, on a busy machine too.
    monkeypatch.setattr(settings(), "stall_seconds", 6)
    monkeypatch.setattr(attempt_limits, "_SHORT_GRACE", 0.5)
    job_id = submit(behave=behave, at=2, max_attempts=2)
    assert run(trainers) == "queued"
    job = read(job_id)
    assert (job.reason, job.failures) == ("stalled", 1)
    wait_until_runnable(job_id)
    assert run(trainers) == "failed"
    job = read(job_id)
    assert job.error is not None
    assert (job.reason, job.error["code"], job.error["blame"]) == ("attempts_spent", "stalled", "system")
    assert "No step was made for 6 seconds" in job.error["message"]


def test_a_trainer_that_moves_slowly_has_not_stalled(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "stall_seconds", 2.5)
    submit(steps=4, step_seconds=1.0)
    assert run(trainers) == "succeeded"


def test_what_the_kernel_kills_for_want_of_memory_is_tried_once_more(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counter = tmp_path / "vmstat"
    counter.write_text("oom_kill 0\n")
    monkeypatch.setattr(trainer_processes, "_OOM_COUNTERS", (str(counter),))
    trainers.close()
    trainers.warm()
    job_id = submit(behave="sigkill", at=2, max_attempts=9)
    for kills, ending in ((1, "queued"), (2, "failed")):
        counter.write_text(f"oom_kill {kills}\n")
        assert run(trainers) == ending
        wait_until_runnable(job_id) if ending == "queued" else None
    job = read(job_id)
    assert job.error is not None
    assert (job.reason, job.failures, job.error["blame"]) == ("out_of_memory", 2, "user")
    assert "kernel killed the trainer" in job.error["message"]
    assert outcomes(job_id) == ["out_of_memory", "failed"]


@pytest.fixture
def strict_database(database: None) -> Iterator[None]:
    """A database that takes no loss below 0.3, so the fourth step's."""
    with transaction() as session:
        session.execute(text("ALTER TABLE metrics ADD CONSTRAINT no_small_loss CHECK (value > 0.3)"))
    yield
    with transaction() as session:
        session.execute(text("ALTER TABLE metrics DROP CONSTRAINT no_small_loss"))


@pytest.mark.parametrize("step_seconds", [0.0, 0.4])
def test_reports_that_the_database_refuses_are_the_trainer_s_fault_and_not_lost_time(
    trainers: Trainers, strict_database: None, step_seconds: float
) -> None:
    job_id = submit(steps=6, step_seconds=step_seconds, max_attempts=1)
    assert run(trainers) == "failed"
    job = read(job_id)
    assert job.error is not None
    assert (job.reason, job.error["code"]) == ("attempts_spent", "internal")
    assert "reported what cannot be" in job.error["message"]


# ---------------------------------------------------------------- what counts as progress


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Limits of an attempt, asked about by a clock of the test's own: (seconds, reports) → whether it has stalled."""
    clock = [1000.0]
    monkeypatch.setattr(attempt_limits.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(settings(), "stall_seconds", 10.0)
    watched = Limits(1e6, tmp_path)

    def after(seconds: float, *said: Any) -> str | None:
        clock[0] += seconds
        watched.update(said)
        exceeded = watched.exceeded(1)
        return exceeded and exceeded.code

    return after


def step(number: int, stage: str = "target") -> reports.Progress:
    return reports.Progress(stage=stage, step=number, steps=100, fraction=0.1)


def test_the_first_step_of_a_stage_may_take_twice_as_long(watch: Any) -> None:
    assert watch(19, reports.Stage(name="source")) is None
    assert watch(19, step(1, "source")) is None
    assert watch(9) is None
    assert watch(2) == "stalled"
    assert watch(0, reports.Stage(name="target")) is None
    assert watch(19) is None
    assert watch(2) == "stalled"


@pytest.mark.parametrize(
    "said",
    [
        reports.Warned(code="x", message="x"),
        reports.Checkpoint(stage="target", step=5, path="x"),
        reports.Stage(name="target"),
        step(4),
        step(5),
        reports.Metrics(step=5, values={"loss": 1.0}),
        reports.ArtifactReport(name="a", path="a"),
    ],
)
def test_words_are_no_progress(watch: Any, said: Any) -> None:
    known = [reports.Stage(name="target"), reports.ArtifactReport(name="a", path="a")]
    assert watch(0, *known, step(5), reports.Metrics(step=5, values={"loss": 1.0})) is None
    assert watch(9, said) is None
    assert watch(2, said) == "stalled"


def test_a_new_step_of_metrics_alone_is_progress(watch: Any) -> None:
    for number in range(1, 5):
        assert watch(9, reports.Metrics(step=number, values={"control/0/loss": 1.0})) is None
    assert watch(9, reports.Metrics(step=1, values={"control/1/loss": 1.0})) is None
    assert watch(11) == "stalled"


# ---------------------------------------------------------------- what the machine says


def test_the_memory_of_a_family_is_counted_and_none_is_left_of_one_that_is_gone(trainers: Trainers) -> None:
    trainer = trainers.take({"kind": "light", "spec": {}}, settings().data / "nowhere")
    members = machine.process_tree(trainer.pid)
    assert members[0] == trainer.pid
    assert 2**20 < machine.resident_bytes(members) < 2**30
    trainer.close()
    assert machine.process_tree(trainer.pid) == []
    assert trainer.is_gone()
    assert machine.resident_bytes(members) == 0


def test_one_look_at_memory_is_cheap(trainers: Trainers) -> None:
    trainers.warm()
    spare = trainers._spare
    assert spare is not None
    began = time.process_time()
    for _ in range(20):
        machine.resident_bytes(machine.process_tree(spare.pid))
    assert (time.process_time() - began) / 20 < 0.05, "of half a second, a tenth at most"


def test_a_folder_is_measured_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "file").write_bytes(b"x" * 2**20)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert 2**20 <= machine.folder_bytes(tmp_path) < 2**20 + 2**16
    assert machine.folder_bytes(tmp_path / "gone") == 0


@pytest.mark.parametrize(
    ("total", "free", "room"),
    [(100 * 2**30, 2**30, True), (100 * 2**30, 2**30 - 1, False), (2**30, 2**30 // 20, True), (2**30, 2**25, False)],
)
def test_a_twentieth_of_the_disk_or_a_gibibyte_must_be_free(
    monkeypatch: pytest.MonkeyPatch, total: int, free: int, room: bool
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"total": total, "free": free}))
    assert machine.has_room() is room


def test_nine_tenths_of_the_machine_are_allowed_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.memory_allowed() == int(0.9 * machine.main_memory())
    monkeypatch.setattr(settings(), "max_memory_bytes", 5)
    assert machine.memory_allowed() == 5
