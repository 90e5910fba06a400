"""The job protocol on a real Postgres: who may run a job, who may write, and how it ends."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app import events, ids, jobs, metrics, queue, waiting, workers
from app.api import shapes
from app.db import transaction
from app.errors import Conflict, NotFound
from app.jobs import Stale
from app.states import MOVES, TERMINAL, JobState
from app.tables import Job
from tests.app.claims import claimed, expire, queued, read

pytestmark = pytest.mark.usefixtures("database")


def states(job_id: str) -> list[str]:
    with transaction() as session:
        return [
            event.data["state"]
            for event in events.after(session, job_id)
            if event.type == "state" and "state" in event.data
        ]


def test_the_larger_priority_then_the_longer_wait_comes_first() -> None:
    late, early, urgent = (queued(priority=priority) for priority in (5, 5, 9))
    with transaction() as session:
        session.execute(text("UPDATE jobs SET queued_at = now() - interval '1 minute' WHERE id = :id"), {"id": early})
    with transaction() as session:
        assert [waiting.position(session, jobs.get(session, job)) for job in (urgent, early, late)] == [0, 1, 2]
    order = [claim.job_id for claim in (jobs.claim("w") for _ in range(3)) if claim]
    assert order == [urgent, early, late]
    assert jobs.claim("w") is None


def test_a_job_for_a_gpu_waits_for_one() -> None:
    job = queued(device="gpu")
    assert jobs.claim("w", "cpu") is None
    claim = jobs.claim("w", "gpu")
    assert claim is not None
    assert claim.job_id == job


def test_a_job_with_a_delay_is_not_runnable_yet() -> None:
    job = queued()
    with transaction() as session:
        session.execute(text("UPDATE jobs SET run_after = now() + interval '1 hour' WHERE id = :id"), {"id": job})
    assert jobs.claim("w") is None


def test_no_job_is_claimed_twice_by_racing_workers() -> None:
    made = {queued() for _ in range(100)}

    def drain(worker: int) -> list[str]:
        return [claim.job_id for claim in iter(lambda: jobs.claim(f"w{worker}"), None)]

    with ThreadPoolExecutor(8) as pool:
        taken = list(itertools.chain.from_iterable(pool.map(drain, range(8))))
    assert len(taken) == 100
    assert set(taken) == made


def test_a_beat_extends_the_lease_and_brings_back_what_is_wanted() -> None:
    claim = claimed()
    before = read(claim.job_id).lease_until
    heartbeat = jobs.heartbeat(claim)
    assert heartbeat is not None
    assert heartbeat.wanted is None
    assert read(claim.job_id).lease_until > before
    with transaction() as session:
        assert jobs.cancel(session, claim.job_id, discard=True)[1] is True
        assert jobs.cancel(session, claim.job_id)[1] is False
    heartbeat = jobs.heartbeat(claim)
    assert heartbeat is not None
    assert (heartbeat.wanted, heartbeat.discard) == ("cancel", True)


def test_an_expired_lease_cannot_be_extended() -> None:
    claim = claimed()
    expire(claim)
    assert jobs.heartbeat(claim) is None


def test_a_lost_worker_s_job_runs_again_and_nothing_of_the_old_attempt_is_accepted() -> None:
    old = claimed()
    expire(old)
    assert jobs.sweep().requeued == 1
    job = read(old.job_id)
    assert (job.state, job.reason, job.failures, job.lease_until) == ("queued", "worker_lost", 1, None)
    with transaction() as session:
        session.execute(text("UPDATE jobs SET run_after = now()"))
    new = jobs.claim("worker-2")
    assert new is not None
    assert new.attempt == 2
    writes = [
        lambda session: jobs.note_stage(session, old, "target"),
        lambda session: jobs.note_progress(session, old, {"step": 1}, {}),
        lambda session: jobs.note(session, old, "warning", {}),
        lambda session: jobs.note_start(session, old, {}),
        lambda session: jobs.note_resume(session, old, "target", 3),
        lambda session: jobs.fence(session, old),
        lambda session: jobs.requeue(session, old, outcome="crashed", charge=True),
        lambda session: jobs.finish(session, old, JobState.SUCCEEDED, reason="done"),
    ]
    for write in writes:
        with pytest.raises(Stale), transaction() as session:
            write(session)
    assert jobs.heartbeat(old) is None
    assert jobs.heartbeat(new) is not None


def test_the_budget_of_attempts_ends_in_failed_worker_lost() -> None:
    job_id = queued(max_attempts=2)
    for _ in range(2):
        with transaction() as session:
            session.execute(text("UPDATE jobs SET run_after = now()"))
        claim = jobs.claim("w")
        assert claim is not None
        expire(claim)
        jobs.sweep()
    job = read(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    with transaction() as session:
        assert [(attempt.attempt, attempt.outcome) for attempt in jobs.attempts(session, job_id)] == [
            (1, "worker_lost"),
            (2, "worker_lost"),
        ]


def test_a_drain_does_not_charge() -> None:
    claim = claimed(max_attempts=1)
    with transaction() as session:
        jobs.requeue(session, claim, outcome="drained", charge=False)
    job = read(claim.job_id)
    assert (job.state, job.failures, job.reason) == ("queued", 0, "drained")
    again = jobs.claim("w")
    assert again is not None
    assert again.attempt == 2


def test_a_failed_attempt_waits_longer_each_time() -> None:
    job_id, waits = queued(max_attempts=10), []
    for _ in range(3):
        claim = jobs.claim("w")
        assert claim is not None
        with transaction() as session:
            jobs.requeue(session, claim, outcome="crashed", charge=True)
        with transaction() as session:
            waits.append(
                session.execute(text("SELECT extract(epoch FROM run_after - clock_timestamp()) FROM jobs")).scalar_one()
            )
            session.execute(text("UPDATE jobs SET run_after = now()"))
    assert read(job_id).failures == 3
    assert all(most / 2 - 0.5 < float(wait) <= most for wait, most in zip(waits, (2, 4, 8), strict=True)), waits


def test_jobs_that_failed_together_do_not_all_come_back_together() -> None:
    claims = [claimed() for _ in range(10)]
    with transaction() as session:
        for claim in claims:
            jobs.requeue(session, claim, outcome="crashed", charge=True)
    with transaction() as session:
        spread = text("SELECT extract(epoch FROM max(run_after - queued_at) - min(run_after - queued_at)) FROM jobs")
        assert session.execute(spread).scalar_one() > 0.2


def test_a_delay_has_an_end() -> None:
    claim = claimed(max_attempts=20)
    for attempt in range(2, 16):
        with transaction() as session:
            session.execute(text("UPDATE jobs SET state = 'queued', lease_until = NULL"))
            session.execute(
                text("UPDATE jobs SET state = 'running', lease_until = now(), attempt = :n"), {"n": attempt}
            )
            session.execute(text("UPDATE attempts SET attempt = :n"), {"n": attempt})
    with transaction() as session:
        session.execute(text("UPDATE jobs SET failures = 14"))
        jobs.requeue(session, replace(claim, attempt=15), outcome="crashed", charge=True)
    with transaction() as session:
        wait = session.execute(text("SELECT extract(epoch FROM run_after - clock_timestamp()) FROM jobs")).scalar_one()
    assert jobs.LONGEST_DELAY / 2 - 5 < wait <= jobs.LONGEST_DELAY


def test_a_queued_job_is_cancelled_at_once_and_never_starts() -> None:
    job_id = queued()
    with transaction() as session:
        assert jobs.cancel(session, job_id)[1] is True
        assert jobs.cancel(session, job_id)[1] is False
    assert read(job_id).state == "cancelled"
    assert jobs.claim("w") is None


def test_cancel_wins_over_another_attempt_but_not_over_success() -> None:
    crashed, lost, done = (claimed() for _ in range(3))
    for claim in (crashed, lost, done):
        with transaction() as session:
            jobs.cancel(session, claim.job_id)
    with transaction() as session:
        jobs.requeue(session, crashed, outcome="crashed", charge=True)
        jobs.finish(session, done, JobState.SUCCEEDED, reason="done")
    expire(lost)
    jobs.sweep()
    assert [read(claim.job_id).state for claim in (crashed, lost, done)] == ["cancelled", "cancelled", "succeeded"]
    with pytest.raises(Conflict), transaction() as session:
        jobs.cancel(session, done.job_id)


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_the_database_itself_refuses_to_change_an_ended_job(end: JobState) -> None:
    claim = claimed()
    with transaction() as session:
        jobs.finish(session, claim, end, reason="test", error={"code": "internal"} if end == JobState.FAILED else None)
    for change in (
        "state = 'queued', finished_at = NULL, error = NULL",
        "state = 'running', finished_at = NULL, error = NULL, lease_until = now()",
        "attempt = attempt + 1",
        "finished_at = now() + interval '1 day'",
        "failures = 0, attempt = 0",
    ):
        with pytest.raises(IntegrityError), transaction() as session:
            session.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": claim.job_id})
    with transaction() as session:
        session.execute(text("UPDATE jobs SET name = 'renamed', tags = '{x}' WHERE id = :id"), {"id": claim.job_id})
    assert states(claim.job_id)[-1] == end
    assert sum(state in TERMINAL for state in states(claim.job_id)) == 1


def test_the_trigger_allows_exactly_the_moves_of_the_table() -> None:
    needs = {"running": "lease_until = now(), attempt = attempt + 1", "failed": "error = '{}', finished_at = now()"}
    for start, end in itertools.product(JobState, JobState):
        if start == end:
            continue
        job_id = queued()
        with transaction() as session:
            if start != JobState.QUEUED:
                session.execute(
                    text("UPDATE jobs SET state = 'running', lease_until = now(), attempt = 1 WHERE id = :id"),
                    {"id": job_id},
                )
            if start not in (JobState.QUEUED, JobState.RUNNING):
                extra = needs.get(start, "finished_at = now()" if start in TERMINAL else "finished_at = NULL")
                session.execute(
                    text(f"UPDATE jobs SET state = '{start}', lease_until = NULL, {extra} WHERE id = :id"),
                    {"id": job_id},
                )
        extra = needs.get(end, "finished_at = now()" if end in TERMINAL else "finished_at = NULL")
        lease = "" if end == JobState.RUNNING else "lease_until = NULL, "
        error = "" if end == JobState.FAILED else "error = NULL, "
        move = text(f"UPDATE jobs SET state = '{end}', {lease}{error}{extra} WHERE id = :id")
        if end in MOVES[start]:
            with transaction() as session:
                session.execute(move, {"id": job_id})
        else:
            with pytest.raises(IntegrityError), transaction() as session:
                session.execute(move, {"id": job_id})


def test_checks_of_the_database_hold_without_the_program() -> None:
    claim = claimed()
    for change in (
        "lease_until = NULL",
        "attempt = attempt - 1",
        "attempt = attempt + 1",
        "finished_at = now()",
        "error = '{}'",
        "wanted = 'sleep'",
        "failures = 9",
    ):
        with pytest.raises(IntegrityError), transaction() as session:
            session.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": claim.job_id})


def test_events_count_from_one_without_gaps_under_racing_writers() -> None:
    job_id = queued()

    def write(number: int) -> None:
        with transaction() as session:
            events.add(session, job_id, "note", {"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(64)))
    with transaction() as session:
        found = events.after(session, job_id)
        assert [event.seq for event in found] == list(range(1, 65))
        assert [event.seq for event in events.after(session, job_id, 60)] == [61, 62, 63, 64]


def test_what_a_resumed_attempt_computes_again_replaces_and_never_doubles() -> None:
    claim = claimed()
    with transaction() as session:
        metrics.record(
            session,
            claim.job_id,
            1,
            [(step, {"loss": step / 10, "control/0/loss": 1.0, "source/loss": 2.0}) for step in range(1, 7)],
        )
    with transaction() as session:
        assert metrics.rewind(session, claim.job_id, "", 4) == 2
        assert metrics.rewind(session, claim.job_id, "control/0/", 0) == 6
        jobs.requeue(session, claim, outcome="drained", charge=False)
    assert jobs.claim("worker-2") is not None
    with transaction() as session:
        metrics.record(session, claim.job_id, 2, [(5, {"loss": 0.55}), (6, {"loss": float("nan")})])
    with transaction() as session:
        steps, series = metrics.series(session, claim.job_id)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert series == {"loss": [0.1, 0.2, 0.3, 0.4, 0.55, None], "source/loss": [2.0] * 6}


def test_a_prefix_is_no_pattern() -> None:
    claim = claimed()
    with transaction() as session:
        metrics.record(
            session,
            claim.job_id,
            1,
            [(1, {"treated/1/loss": 1.0, "treatedX1/loss": 1.0, "a_b/loss": 1.0, "axb/loss": 1.0})],
        )
        assert metrics.rewind(session, claim.job_id, "a_b/", 0) == 1


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 10, 20, 131, 1000])
def test_each_series_is_thinned_by_itself_with_its_ends_and_its_best_kept(most: int) -> None:
    claim = claimed()
    told: dict[str, dict[int, float | None]] = {
        "source/loss": {step: 1 / step for step in range(1, 14)},
        "loss": {step: math.sin(step) for step in range(1, 133)},
        "val_accuracy": {step: None if step % 3 else 0.5 + (step == 63) for step in range(3, 133, 3)},
        "late": {131: 1.0},
        "nothing": {40: None},
    }
    with transaction() as session:
        for name, values in told.items():
            metrics.record(session, claim.job_id, 1, [(step, {name: value}) for step, value in values.items()])
        steps, series = metrics.series(session, claim.job_id, None, most)
        assert metrics.series(session, claim.job_id, ["loss"], most)[1].keys() == {"loss"}
    assert steps == sorted(set(steps))
    assert series.keys() == told.keys()
    for name, values in told.items():
        kept = {step: value for step, value in zip(steps, series[name], strict=True) if value is not None}
        finite = {step: value for step, value in values.items() if value is not None}
        assert kept.items() <= finite.items()
        assert min(most - 2, len(finite)) <= len(kept) <= most
        if finite:
            assert max(values) in kept
        if finite and most >= 2:
            assert min(values) in kept
        if finite and most >= 4:
            assert {min(finite.values()), max(finite.values())} <= set(kept.values())
        gaps = [after - before for before, after in itertools.pairwise(sorted(kept))]
        if name == "loss" and most >= 10:
            assert max(gaps) <= 132 / (most - 3) + 1, "evenly between"


def test_a_sweep_sends_the_wake_ups_that_the_broker_lacks() -> None:
    for _ in range(5):
        queued()
    assert queue.length() == 0
    assert jobs.sweep().woken == 5
    assert queue.length() == 5
    assert jobs.sweep().woken == 0


def test_only_ended_jobs_can_be_deleted() -> None:
    claim = claimed()
    with pytest.raises(Conflict), transaction() as session:
        jobs.delete(session, claim.job_id)
    with transaction() as session:
        jobs.finish(session, claim, JobState.CANCELLED, reason="test")
        jobs.delete(session, claim.job_id)
    with pytest.raises(NotFound):
        read(claim.job_id)


def test_a_page_goes_on_where_the_last_one_ended() -> None:
    made = [queued(name="a" if number % 2 else "b", tags=["even"] if number % 2 == 0 else []) for number in range(7)]
    with transaction() as session:
        first = list(jobs.page(session, limit=4))
        rest = list(jobs.page(session, limit=4, before=first[-1].id))
        assert [job.id for job in [*first, *rest]] == made[::-1]
        assert [job.id for job in jobs.page(session, tag="even")] == made[::-1][::2]
        assert [job.id for job in jobs.page(session, name="a", kind="light", state="queued")] == [
            made[5],
            made[3],
            made[1],
        ]
        assert list(jobs.page(session, state="failed")) == []


def test_workers_are_online_while_they_are_heard() -> None:
    about = {
        "host": "h",
        "pid": 1,
        "device": "cpu",
        "device_name": None,
        "memory_bytes": 1,
        "version": "0",
        "job_id": None,
    }
    with transaction() as session:
        workers.hello(session, "w1", **about)
        workers.hello(session, "w1", **{**about, "job_id": "job_1"})
        workers.hello(session, "w2", **about)
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '1 minute' WHERE id = 'w2'"))
        assert [(worker.id, worker.job_id) for worker in workers.online(session)] == [("w1", "job_1")]
        workers.goodbye(session, "w1")
        assert workers.online(session) == []


def test_a_spec_keeps_the_order_in_which_it_was_given() -> None:
    tasks = {"odd": {"z": 1, "a": 2}, "digit": {}, "at_least_5": {}}
    with transaction() as session:
        job = Job(
            id=ids.new("job"),
            kind="light",
            spec={"tasks": tasks},
            resolved_spec={"tasks": tasks},
            state="queued",
            max_seconds=1,
            max_attempts=1,
        )
        session.add(job)
    read_back = read(job.id)
    assert list(read_back.resolved_spec["tasks"]) == ["odd", "digit", "at_least_5"]
    assert list(read_back.spec["tasks"]["odd"]) == ["z", "a"]


def test_a_queued_job_that_somebody_deletes_is_shown_as_it_was_read() -> None:
    job_id = queued()
    with transaction() as session:
        job = jobs.get(session, job_id)
        with transaction() as another:
            jobs.cancel(another, job_id)
            jobs.delete(another, job_id)
        assert shapes.of_job(session, job).waits_for == "no_worker"


def test_a_queued_job_says_why_it_waits() -> None:
    about = {"host": "h", "pid": 1, "device_name": None, "memory_bytes": 1, "version": "0", "job_id": None}
    anywhere, on_gpu, later = queued(), queued(device="gpu"), queued()

    def reasons() -> list[str | None]:
        with transaction() as session:
            return [waiting.waits_for(session, jobs.get(session, job)) for job in (anywhere, on_gpu, later)]

    with transaction() as session:
        session.execute(text("UPDATE jobs SET run_after = now() + interval '1 hour' WHERE id = :id"), {"id": later})
    assert reasons() == ["no_worker", "no_worker", "backing_off"]
    with transaction() as session:
        workers.hello(session, "w1", device="cpu", **about)
    assert reasons() == ["worker_busy", "no_worker_for_device", "backing_off"]
    with transaction() as session:
        workers.hello(session, "w2", device="gpu", **about)
    assert reasons() == ["worker_busy", "worker_busy", "backing_off"]
    with transaction() as session:
        workers.hello(session, "w1", device="cpu", has_room=False, **about)
    assert reasons() == ["worker_busy", "worker_busy", "backing_off"], "the other worker has room"
    with transaction() as session:
        workers.hello(session, "w2", device="gpu", has_room=False, **about)
    assert reasons() == ["no_room", "no_room", "backing_off"]
    claim = jobs.claim("w1")
    assert claim is not None
    assert claim.job_id == anywhere
    assert reasons()[0] is None


def test_a_job_goes_to_a_worker_with_its_backend_and_says_where_there_is_none() -> None:
    about = {"host": "h", "pid": 1, "device": "cpu", "device_name": None, "memory_bytes": 1, "version": "0"}
    on_jax, anywhere = queued(backend="jax"), queued()

    def reason() -> str | None:
        with transaction() as session:
            return waiting.waits_for(session, jobs.get(session, on_jax))

    with transaction() as session:
        workers.hello(session, "w1", job_id=None, backends=["tensorflow"], **about)
    assert reason() == "no_worker_for_backend"
    claim = jobs.claim("w1", "cpu", ["tensorflow"])
    assert claim is not None
    assert claim.job_id == anywhere, "the one before it is not for this worker"
    assert jobs.claim("w1", "cpu", ["tensorflow"]) is None
    with transaction() as session:
        workers.hello(session, "w2", job_id=None, backends=["tensorflow", "jax"], **about)
    assert reason() == "worker_busy"
    claim = jobs.claim("w2", "cpu", ["tensorflow", "jax"])
    assert claim is not None
    assert claim.job_id == on_jax
