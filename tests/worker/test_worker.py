"""Real worker processes against a real broker: killed, frozen, drained, woken, starved of wake-ups."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app import embedded, jobs, queue
from app import workers as online
from app.db import transaction
from app.settings import settings
from app.tables import Attempt
from tests.worker.conftest import Workers, ended, metric_steps, outcomes, read, steps_done, submit, wait_for
from worker import machine

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.slow]  # whole workers, started, killed and frozen

NO_HURRY = {"BEQUEST_LEASE_SECONDS": "9"}
"""Where no worker is hurt and twenty jobs keep two cores busy: a beat that comes late is not a worker that is lost."""


def test_twenty_jobs_run_once_each_on_two_workers(workers: Workers) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: submit(steps=3), range(20)))
    workers.begin(**NO_HURRY)
    workers.begin(**NO_HURRY)
    for job_id in ids:
        job = ended(job_id, 180)  # of twenty, each of which starts a process
        assert (job.state, job.attempt, job.failures) == ("succeeded", 1, 0)
        assert metric_steps(job_id) == [1, 2, 3]
    with transaction() as session:
        ran = Counter(session.scalars(select(Attempt.worker_id)))
    assert len(ran) == 2
    assert min(ran.values()) >= 3


def test_an_idle_worker_takes_a_job_while_the_other_is_busy(workers: Workers) -> None:
    workers.start()
    workers.start()
    busy = submit(steps=2000, step_seconds=0.02)
    wait_for(lambda: steps_done(busy) > 0)
    time.sleep(0.5)
    began = time.monotonic()
    quick = submit(steps=1)
    wait_for(lambda: read(quick).started_at, 5)
    assert time.monotonic() - began < 2
    assert ended(quick).state == "succeeded"
    assert read(busy).state == "running"


def test_a_worker_killed_mid_job_is_followed_by_attempt_two_from_the_checkpoint(workers: Workers) -> None:
    first = workers.start()
    job_id = submit(steps=60, step_seconds=0.05)
    wait_for(lambda: steps_done(job_id) >= 12)
    trainers = first.trainers()
    assert trainers
    first.signal(signal.SIGKILL)
    first.process.wait()
    wait_for(lambda: not any(machine.process_tree(pid) for pid in trainers), 2, "its trainers to die")
    workers.start()
    job = ended(job_id, 30)
    assert (job.state, job.attempt, job.failures) == ("succeeded", 2, 1)
    assert outcomes(job_id) == ["worker_lost", "succeeded"]
    assert metric_steps(job_id) == list(range(1, 61))
    with transaction() as session:
        resumed = jobs.attempts(session, job_id)[1].resumed
    assert resumed is not None
    assert resumed["target"] >= 10


def test_a_worker_frozen_past_its_lease_writes_nothing_when_it_thaws(workers: Workers) -> None:
    zombie = workers.start()
    job_id = submit(steps=150, step_seconds=0.03)
    wait_for(lambda: steps_done(job_id) >= 5)
    zombie.signal(signal.SIGSTOP)
    workers.start()
    wait_for(lambda: read(job_id).attempt == 2, 45, "the second attempt")
    zombie.signal(signal.SIGCONT)
    job = ended(job_id, 30)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert metric_steps(job_id) == list(range(1, 151))
    wait_for(lambda: b'"ending": "lost"' in zombie.log.read_bytes(), 10, "the zombie to notice")
    with transaction() as session:
        assert [attempt.outcome for attempt in jobs.attempts(session, job_id)] == ["worker_lost", "succeeded"]


def test_a_worker_told_to_stop_gives_its_job_back_uncharged_and_leaves(workers: Workers) -> None:
    first = workers.start()
    job_id = submit(steps=100, step_seconds=0.03)
    wait_for(lambda: steps_done(job_id) >= 8)
    began = time.monotonic()
    first.signal(signal.SIGTERM)
    first.process.wait(15)
    assert time.monotonic() - began < 10
    job = read(job_id)
    assert (job.state, job.reason, job.failures) == ("queued", "drained", 0)
    with transaction() as session:
        assert not online.online(session)
    workers.start()
    assert ended(job_id, 30).state == "succeeded"
    assert metric_steps(job_id) == list(range(1, 101))


def test_a_running_job_is_cancelled_within_a_beat_and_a_queued_one_never_starts(workers: Workers) -> None:
    workers.start()
    running = submit(steps=5000)
    queued = submit(steps=1)
    wait_for(lambda: steps_done(running) > 0)
    with transaction() as session:
        assert jobs.cancel(session, queued)[0].state == "cancelled"
        jobs.cancel(session, running)
    assert ended(running, 5).state == "cancelled"
    after = submit(steps=1)
    assert ended(after).state == "succeeded"
    assert read(queued).attempt == 0


def test_a_paused_job_gives_its_worker_free_and_goes_on_when_it_is_resumed(workers: Workers) -> None:
    workers.start()
    paused = submit(steps=60, step_seconds=0.03)
    wait_for(lambda: steps_done(paused) >= 8)
    with transaction() as session:
        jobs.pause(session, paused)
    wait_for(lambda: read(paused).state == "paused", 10)
    assert ended(submit(steps=2)).state == "succeeded"
    with transaction() as session:
        jobs.resume(session, paused)
    job = ended(paused, 30)
    assert (job.state, job.attempt, job.failures) == ("succeeded", 2, 0)
    assert metric_steps(paused) == list(range(1, 61))


def test_a_worker_told_to_stop_leaves_though_its_trainer_is_deaf(workers: Workers) -> None:
    worker = workers.start(BEQUEST_GRACE_SECONDS="2")
    job_id = submit(steps=5000, behave="deaf", at=2, max_attempts=1)
    wait_for(lambda: steps_done(job_id) >= 4)
    family = machine.process_tree(worker.pid)
    worker.signal(signal.SIGTERM)
    worker.process.wait(20)
    assert (read(job_id).state, read(job_id).reason, read(job_id).failures) == ("queued", "drained", 0)
    assert not [pid for pid in family if machine.process_tree(pid)]


def test_a_killed_worker_leaves_no_process_of_its_trainer_s_at_whatever_moment(workers: Workers) -> None:
    for seconds in (0.0, 0.1, 0.3, 0.6, None):
        worker = workers.start()
        job_id = submit(steps=5000, behave="breed", at=1, max_attempts=9)
        wait_for(lambda job=job_id: read(job).attempt >= 1)
        if seconds is None:  # once it has started others for sure, on a machine of any speed
            wait_for(lambda job=job_id: steps_done(job) >= 2)
        else:
            time.sleep(seconds)
        family = machine.process_tree(worker.pid)
        worker.signal(signal.SIGKILL)
        worker.process.wait()
        wait_for(lambda pids=family: not any(machine.process_tree(pid) for pid in pids), 5, "the whole family to end")
        with transaction() as session:
            jobs.cancel(session, job_id)


@pytest.fixture
def own_broker(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[embedded.Folder]:
    """A Valkey of the test's own, as `bequest serve` runs it, so that it may be killed."""
    with embedded.folder(run_dir / "own") as folder:
        monkeypatch.setenv("BROKER_URL", embedded.broker_url(folder))
        settings.cache_clear()
        queue._sender.cache_clear()
        queue._redis.cache_clear()
        yield folder
    monkeypatch.undo()
    settings.cache_clear()
    queue._sender.cache_clear()
    queue._redis.cache_clear()


def test_a_broker_that_comes_back_empty_loses_no_job(workers: Workers, own_broker: embedded.Folder) -> None:
    broker = embedded.start_valkey(own_broker)
    try:
        busy = submit(steps=400, step_seconds=0.03)
        workers.start(BROKER_URL=settings().broker_url or "", **NO_HURRY)
        workers.start(BROKER_URL=settings().broker_url or "", **NO_HURRY)
        wait_for(lambda: steps_done(busy) > 0)
        ids = [submit(steps=2) for _ in range(20)]
        assert queue.length()
        broker.kill()
        for file in (own_broker.home / "valkey").rglob("*.aof"):
            file.unlink()
        assert steps_done(busy) < 400
        time.sleep(0.5)
        broker = embedded.start_valkey(own_broker)
        for job_id in [busy, *ids]:
            job = ended(job_id, 60)
            assert (job.state, job.attempt) == ("succeeded", 1)
    finally:
        workers.stop()
        broker.kill()


def test_a_worker_says_who_it_is_and_tidies_up_after_dead_ones(workers: Workers) -> None:
    left = settings().jobs_dir / "job_gone"
    (left / "checkpoints-1").mkdir(parents=True)
    waiting = settings().jobs_dir / submit(steps=1, device="gpu")
    waiting.mkdir()
    worker = workers.start()
    row = wait_for(_online)
    assert (row.pid, row.device) == (worker.pid, "cpu")
    assert row.memory_bytes > 2**28
    wait_for(lambda: not left.exists())
    assert waiting.exists()
    job_id = submit(steps=300)
    wait_for(lambda: (now := _online()) and now.job_id == job_id)


def _online() -> Any:
    with transaction() as session:
        rows = online.online(session)
    return rows[0] if rows else None
