"""Pause and resume: a job that is held is never claimed, and nothing of it is charged or lost."""

from __future__ import annotations

import itertools

import pytest

from app import jobs, waiting
from app.db import transaction
from app.errors import Conflict
from tests.app.claims import claimed, expire, queued, read

pytestmark = pytest.mark.usefixtures("database")


def asked(verb: str, job_id: str) -> tuple[str, str | None, bool]:
    """State, wish, and whether anything changed."""
    with transaction() as session:
        job, changed = getattr(jobs, verb)(session, job_id)
        return job.state, job.wanted, changed


def test_a_paused_job_is_never_claimed_until_it_is_resumed() -> None:
    job_id, next_in_line = queued(), queued()
    assert asked("pause", job_id) == ("paused", None, True)
    assert asked("pause", job_id) == ("paused", None, False)
    with transaction() as session:
        job = jobs.get(session, job_id)
        assert (waiting.position(session, job), waiting.waits_for(session, job)) == (None, "resume")
        assert waiting.position(session, jobs.get(session, next_in_line)) == 0
    claim = jobs.claim("w")
    assert claim is not None
    assert claim.job_id == next_in_line
    assert jobs.claim("w") is None
    assert jobs.sweep().woken == 0
    assert asked("resume", job_id) == ("queued", None, True)
    assert asked("resume", job_id) == ("queued", None, False)
    again = jobs.claim("w")
    assert again is not None
    assert again.job_id == job_id


def test_a_running_job_is_paused_by_its_worker_without_charge() -> None:
    claim = claimed(max_attempts=1)
    assert asked("pause", claim.job_id) == ("running", "pause", True)
    assert asked("pause", claim.job_id) == ("running", "pause", False)
    heartbeat = jobs.heartbeat(claim)
    assert heartbeat is not None
    assert heartbeat.wanted == "pause"
    with transaction() as session:
        jobs.requeue(session, claim, outcome="paused", charge=False)
    job = read(claim.job_id)
    assert (job.state, job.reason, job.wanted, job.failures) == ("paused", "paused_by_client", None, 0)
    with transaction() as session:
        assert [attempt.outcome for attempt in jobs.attempts(session, job.id)] == ["paused"]


def test_a_pause_that_is_taken_back_in_time_leaves_the_job_in_the_queue() -> None:
    claim = claimed()
    assert asked("resume", claim.job_id) == ("running", None, False)
    asked("pause", claim.job_id)
    assert asked("resume", claim.job_id) == ("running", None, True)
    with transaction() as session:
        jobs.requeue(session, claim, outcome="paused", charge=False)
    job = read(claim.job_id)
    assert (job.state, job.reason, job.failures) == ("queued", "resumed_by_client", 0)
    assert jobs.claim("w") is not None, "no back-off"


def test_a_job_that_was_backing_off_runs_at_once_when_it_is_resumed() -> None:
    claim = claimed()
    with transaction() as session:
        jobs.requeue(session, claim, outcome="crashed", charge=True)
    asked("pause", claim.job_id)
    asked("resume", claim.job_id)
    assert jobs.claim("w") is not None


def test_cancel_beats_pause() -> None:
    claim, held = claimed(), queued()
    asked("pause", held)
    assert asked("cancel", held) == ("cancelled", None, True)
    asked("pause", claim.job_id)
    assert asked("cancel", claim.job_id) == ("running", "cancel", True)
    for verb, job_id in itertools.product(("pause", "resume"), (held, claim.job_id)):
        with pytest.raises(Conflict):
            asked(verb, job_id)
    with transaction() as session:
        jobs.requeue(session, claim, outcome="paused", charge=False)
    assert read(claim.job_id).state == "cancelled"


def test_a_job_to_be_paused_whose_worker_is_lost_is_paused_and_charged_while_there_is_budget() -> None:
    first, last = claimed(max_attempts=2), claimed(max_attempts=1)
    for claim in (first, last):
        asked("pause", claim.job_id)
        expire(claim)
    swept = jobs.sweep()
    assert (swept.requeued, swept.ended) == (1, 1)
    assert (read(first.job_id).state, read(first.job_id).failures) == ("paused", 1)
    assert (read(last.job_id).state, read(last.job_id).wanted) == ("failed", None)
