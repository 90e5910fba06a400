"""What the database itself refuses, whatever a program does: plain SQL goes past the program here."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from app import db, events, ids, jobs, metrics
from app.db import transaction
from app.jobs import Claim
from app.states import JobState
from app.tables import Job

pytestmark = pytest.mark.usefixtures("database")

WRITES = {
    "metrics": "INSERT INTO metrics (job_id, name, step, attempt, value) VALUES (:job, 'loss', 99, :attempt, 1)",
    "artifacts": "INSERT INTO artifacts (job_id, name, attempt, sha256, bytes, media_type) VALUES (:job, 'x', :attempt, '0', 1, 'x')",
    "models": "INSERT INTO models (id, job_id, attempt, role, name, version, manifest, sha256, bytes) "
    "VALUES ('mdl_x', :job, :attempt, 'x', 'x', 1, '{}', '0', 1)",
    "events": "INSERT INTO events (job_id, seq, attempt, type) VALUES (:job, 99, :attempt, 'checkpoint')",
}


def run(statement: str, **given: Any) -> None:
    with transaction() as session:
        session.execute(text(statement), given)


def refused(statement: str, words: str | None = None, **given: Any) -> None:
    with pytest.raises(IntegrityError, match=words):
        run(statement, **given)


def queued(**columns: Any) -> str:
    with transaction() as session:
        job = Job(id=ids.new("job"), kind="light", spec={}, resolved_spec={}, state="queued", max_seconds=60, **columns)
        job.max_attempts = 3
        session.add(job)
    return job.id


def claimed() -> Claim:
    queued()
    claim = jobs.claim("worker-1")
    assert claim is not None
    return claim


def again(claim: Claim) -> Claim:
    """The next attempt of the same job."""
    with transaction() as session:
        jobs.requeue(session, claim, outcome="drained", charge=False)
    following = jobs.claim("worker-2")
    assert following is not None
    return following


def moves(job_id: str) -> list[tuple[str | None, str, int]]:
    with transaction() as session:
        query = text("SELECT from_state, to_state, attempt FROM transitions WHERE job_id = :job ORDER BY seq")
        return [tuple(row) for row in session.execute(query, {"job": job_id})]


@pytest.mark.parametrize("table", WRITES)
def test_only_the_attempt_that_runs_may_write(table: str) -> None:
    old = claimed()
    new = again(old)
    refused(WRITES[table], "does not run and may not write", job=new.job_id, attempt=old.attempt)
    refused(WRITES[table], "does not run and may not write", job=new.job_id, attempt=new.attempt + 1)
    run(WRITES[table], job=new.job_id, attempt=new.attempt)
    with transaction() as session:
        jobs.finish(session, new, JobState.CANCELLED, reason="test")
    run(f"DELETE FROM {table} WHERE attempt = 2")
    refused(WRITES[table], "does not run and may not write", job=new.job_id, attempt=new.attempt)


@pytest.mark.parametrize("table", ["metrics", "artifacts", "models"])
def test_a_row_cannot_be_handed_to_an_attempt_that_does_not_run(table: str) -> None:
    claim = claimed()
    run(WRITES[table], job=claim.job_id, attempt=1)
    refused(f"UPDATE {table} SET attempt = 7", "attempt 7 of job")
    with transaction() as session:
        jobs.finish(session, claim, JobState.CANCELLED, reason="test")
    refused(f"UPDATE {table} SET attempt = attempt", "does not run")


def test_one_stale_row_spoils_its_whole_batch() -> None:
    old = claimed()
    new = again(old)
    refused(
        "INSERT INTO metrics (job_id, name, step, attempt, value)"
        " SELECT :job, 'loss', step, CASE step WHEN 1500 THEN 1 ELSE 2 END, 0 FROM generate_series(1, 2000) AS step",
        "attempt 1 of job",
        job=new.job_id,
    )
    with transaction() as session:
        assert metrics.names(session, new.job_id) == []


def test_a_write_that_races_a_new_claim_is_refused_or_comes_before_it() -> None:
    claim = claimed()
    with transaction() as stale:
        stale.execute(text(WRITES["metrics"]), {"job": claim.job_id, "attempt": 1})
        with transaction() as sweeping:
            sweeping.execute(text("SET LOCAL lock_timeout = '200ms'"))
            with pytest.raises(OperationalError, match="lock timeout"):
                sweeping.execute(text("UPDATE jobs SET state = 'queued', lease_until = NULL"))
    late: list[BaseException | None] = []

    def write() -> None:
        try:
            run(WRITES["artifacts"], job=claim.job_id, attempt=1)
            late.append(None)
        except IntegrityError as error:
            late.append(error)

    with transaction() as session:
        jobs.requeue(session, claim, outcome="drained", charge=False)
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it waits for the job's row"
    thread.join(10)
    assert isinstance(late[0], IntegrityError)


def test_events_of_a_job_that_does_not_run_tell_of_moves_alone_and_never_change() -> None:
    claim = claimed()
    with transaction() as session:
        jobs.finish(session, claim, JobState.CANCELLED, reason="test")
        events.add(session, claim.job_id, "state", {}, 1)
    refused("INSERT INTO events (job_id, seq, attempt, type) VALUES (:job, 50, 1, 'model')", job=claim.job_id)
    refused("INSERT INTO events (job_id, seq, attempt, type) VALUES (:job, 50, 0, 'state')", job=claim.job_id)
    refused("UPDATE events SET type = 'other'", "cannot change")


def test_every_move_leaves_its_trace_and_nothing_else_can() -> None:
    claim = claimed()
    with transaction() as session:
        jobs.cancel(session, claim.job_id)
    assert jobs.heartbeat(claim) is not None
    with transaction() as session:
        jobs.requeue(session, claim, outcome="crashed", charge=True)
    seen = [(None, "queued", 0), ("queued", "running", 1), ("running", "cancelled", 1)]
    assert moves(claim.job_id) == seen
    given = {"job": claim.job_id}
    row = "INSERT INTO transitions (job_id, from_state, to_state, attempt) VALUES (:job, 'cancelled', 'queued', 1)"
    for statement in (row, "UPDATE transitions SET to_state = 'succeeded'", "DELETE FROM transitions"):
        refused(statement, "written by the database alone", **(given if ":job" in statement else {}))
    assert moves(claim.job_id) == seen
    with transaction() as session:
        jobs.delete(session, claim.job_id)
    assert moves(claim.job_id) == []


def test_a_move_past_the_program_leaves_its_trace_too() -> None:
    job_id = queued()
    run("UPDATE jobs SET state = 'paused'")
    run("UPDATE jobs SET state = 'queued'")
    assert moves(job_id) == [(None, "queued", 0), ("queued", "paused", 0), ("paused", "queued", 0)]


@pytest.mark.parametrize("columns", ["'running', 0, 0, now()", "'paused', 0, 0, NULL", "'queued', 1, 0, NULL"])
def test_a_job_begins_queued_and_untried(columns: str) -> None:
    refused(
        "INSERT INTO jobs (id, kind, spec, resolved_spec, max_seconds, max_attempts, state, attempt, failures, lease_until)"
        f" VALUES ('job_x', 'light', '{{}}', '{{}}', 1, 1, {columns})",
        "cannot begin as",
    )


def test_a_job_has_one_open_attempt_at_most() -> None:
    claim = claimed()
    refused("INSERT INTO attempts (job_id, attempt, worker_id) VALUES (:job, 2, 'w')", "one_open", job=claim.job_id)
    again(claim)


def test_only_a_running_job_is_wanted_to_do_anything() -> None:
    job_id = queued()
    refused("UPDATE jobs SET wanted = 'pause'", "jobs_wanted_while_running")
    claim = jobs.claim("w")
    assert claim is not None
    run("UPDATE jobs SET wanted = 'pause' WHERE id = :job", job=job_id)
    refused("UPDATE jobs SET state = 'queued', lease_until = NULL", "jobs_wanted_while_running")


def test_a_key_names_one_job_and_has_a_hash() -> None:
    queued(), queued()
    queued(idempotency_key="k", idempotency_hash="h")
    refused("UPDATE jobs SET idempotency_key = 'other', idempotency_hash = NULL", "jobs_idempotency")
    with pytest.raises(IntegrityError, match="jobs_idempotency_key"):
        queued(idempotency_key="k", idempotency_hash="other")


def test_the_second_migration_can_be_taken_back_and_made_again_with_rows_there() -> None:
    claim = claimed()
    run(WRITES["models"], job=claim.job_id, attempt=1)
    config = db._alembic()
    with db.engine().connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        command.upgrade(config, "head")
    assert db.behind() is False
    command.check(db._alembic())
    refused(WRITES["artifacts"], "does not run", job=claim.job_id, attempt=2)
    with transaction() as session:
        jobs.finish(session, claim, JobState.CANCELLED, reason="test")
    assert moves(claim.job_id) == [("running", "cancelled", 1)]
