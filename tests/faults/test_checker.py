"""The checker bites: a database and a store that are right are passed, and each way of being wrong is seen, by the right invariant."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import artifacts, db, events, jobs, metrics, models
from app.db import transaction
from app.settings import settings
from app.states import JobState
from tests.faults import checker, witness
from tests.faults.methods import chain
from tests.faults.record import Cancel
from tests.faults.rig import Rig
from worker.training.process.guard import MARK

pytestmark = pytest.mark.usefixtures("database")

STEPS, CHECKPOINT, CRASHED_AT = 8, 3, 5


@dataclass
class Stage:
    """A job that crashed once and then succeeded; another that is queued. Corrupt it, then ask what the checker sees."""

    done: str
    waiting: str
    sha256: str
    given: dict[str, Any] = field(default_factory=dict)

    def sql(self, statement: str) -> None:
        """Past every guard of the database."""
        with psycopg.connect(db.url(), autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(statement.replace("DONE", f"'{self.done}'").replace("WAITING", f"'{self.waiting}'"))  # type: ignore[arg-type]

    def loosely(self, constraint: str, statement: str) -> None:
        """Past one CHECK of jobs, which is put back, for new rows alone."""
        with psycopg.connect(db.url(), autocommit=True) as connection:
            query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
            found = connection.execute(query, [constraint]).fetchone()
            assert found is not None
            connection.execute(f"ALTER TABLE jobs DROP CONSTRAINT {constraint}")  # type: ignore[arg-type]
        try:
            self.sql(statement)
            self.given["seen"] = self.seen()
        finally:
            self.sql("DELETE FROM jobs WHERE true")
            with psycopg.connect(db.url(), autocommit=True) as connection:
                connection.execute(f"ALTER TABLE jobs ADD CONSTRAINT {constraint} {found[0]}")  # type: ignore[arg-type]

    def seen(self) -> set[str]:
        """The invariants that the checker finds violated."""
        if "seen" in self.given:
            return self.given["seen"]
        with psycopg.connect(db.url(), autocommit=True) as connection:
            return {
                violation.invariant
                for violation in checker.check(checker.Scene(connection, settings().store, **self.given))
            }


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    monkeypatch.setattr(settings(), "plugins", ("tests.faults",))
    with transaction() as session:
        spec = {"kind": "chain", "steps": STEPS, "seed": 4}
        done = jobs.submit(session, spec).id
    values = chain.values(4, "target", STEPS)
    for attempt, (first, last) in enumerate(((0, CRASHED_AT), (CHECKPOINT, STEPS)), 1):
        claim = jobs.claim(f"host-{attempt}-0")
        assert claim is not None
        with transaction() as session:
            jobs.note_stage(session, claim, "target")
            metrics.rewind(session, done, "", first)
            if first:
                jobs.note_resume(session, claim, "target", first)
            rows = [(step, {"loss": values[step - 1]}) for step in range(first + 1, last + 1)]
            metrics.record(session, done, attempt, rows)
        if attempt == 1:
            with transaction() as session:
                jobs.requeue(session, claim, outcome="crashed", charge=True)
            with psycopg.connect(db.url(), autocommit=True) as connection:
                connection.execute("UPDATE jobs SET run_after = now()")
    links = chain.links(4, "target")
    content = tmp_path / "model.keras"
    content.write_bytes(chain.model([next(links) for _ in range(STEPS + 1)][-1], 0))
    stored = artifacts.keep_file(content)
    with transaction() as session:
        manifest = chain.manifest("model", stored.sha256)
        models.keep(session, jobs.fence(session, claim), claim.attempt, "model", stored, None, manifest, [])
        artifacts.add(session, done, 2, "model.keras", stored)
        jobs.finish(session, claim, JobState.SUCCEEDED, reason="completed")
    with transaction() as session:
        waiting = jobs.submit(session, spec).id
        events.after(session, waiting)
    made = Stage(done, waiting, stored.sha256)
    assert made.seen() == set(), "it is right before it is corrupted"
    return made


def blob(stage: Stage) -> Path:
    return settings().store / "blob" / stage.sha256


def cancelled(stage: Stage, change: str) -> None:
    """The waiting job is cancelled, rightly so; then its receipt is changed."""
    with transaction() as session:
        jobs.cancel(session, stage.waiting)
    assert stage.seen() == set()
    stage.sql(f"UPDATE events SET {change} WHERE type = 'resources.released'")


OTHER_SEED = """replace(resolved_spec::text, '"seed": 4', '"seed": 5')::json"""
CORRUPTIONS: dict[str, tuple[str, Callable[[Stage], Any]]] = {
    "an acknowledged job is not there": ("I1", lambda s: s.given.update(acknowledged=["job_gone"])),
    "an acknowledged job waits for ever": ("I1", lambda s: s.given.update(acknowledged=[s.waiting])),
    "a cancel that nobody asked for": ("I1", lambda s: (cancelled(s, "at = at"), s.given.update(acknowledged=[s.waiting]))),
    "a failure that nothing caused": (
        "I1",
        lambda s: (
            s.sql("UPDATE jobs SET state = 'failed', reason = 'internal', error = '{}' WHERE id = DONE"),
            s.given.update(acknowledged=[s.done]),
        ),
    ),
    "a second end": ("I2", lambda s: s.sql("INSERT INTO transitions (job_id, to_state, attempt) VALUES (DONE, 'failed', 2)")),
    "an end that only the events know": ("I2", lambda s: s.sql("DELETE FROM transitions WHERE to_state = 'succeeded'")),
    "an end that only the database knows": ("I2", lambda s: s.sql("DELETE FROM events WHERE data->>'state' = 'succeeded'")),
    "a move that is none": ("I2", lambda s: s.sql("UPDATE transitions SET to_state = 'paused' WHERE to_state = 'queued' AND attempt = 0")),
    "a state that nobody moved to": ("I2", lambda s: s.sql("UPDATE jobs SET state = 'paused' WHERE id = WAITING")),
    "an attempt too few": ("I2", lambda s: s.sql("DELETE FROM attempts WHERE attempt = 1")),
    "an attempt without an end": ("I2", lambda s: s.sql("UPDATE attempts SET outcome = NULL, ended_at = NULL WHERE attempt = 1")),
    "a failure that no attempt had": ("I2", lambda s: s.sql("UPDATE jobs SET failures = 2 WHERE id = DONE")),
    "more failures than allowed": ("I2", lambda s: s.sql("UPDATE jobs SET max_attempts = 0 WHERE id = DONE")),
    "a budget given up too early": ("I2", lambda s: s.sql("UPDATE jobs SET reason = 'attempts_spent' WHERE id = DONE")),
    "a running job without a lease": (
        "I2",
        lambda s: s.loosely("jobs_lease_while_running", "UPDATE jobs SET state = 'running' WHERE id = WAITING"),
    ),
    "a row beyond the next one's beginning": ("I3", lambda s: s.sql("UPDATE metrics SET attempt = 1 WHERE step = 8")),
    "a row of an attempt to come": ("I3", lambda s: s.sql("UPDATE metrics SET attempt = 3 WHERE step = 8")),
    "an artifact of an attempt to come": ("I3", lambda s: s.sql("UPDATE artifacts SET attempt = 3")),
    "a last word after another's": (
        "I3",
        lambda s: (
            s.sql("UPDATE attempts SET outcome = 'worker_lost' WHERE attempt = 1"),
            s.given.update(endings=[{"job_id": s.done, "attempt": 1, "ending": "succeeded"}]),
        ),
    ),
    "a gap in the metrics": ("I4", lambda s: s.sql("DELETE FROM metrics WHERE step = 4")),
    "a curve that is too short": ("I4", lambda s: s.sql("DELETE FROM metrics WHERE step = 8")),
    "a value that is another's": ("I4", lambda s: s.sql("UPDATE metrics SET value = value + 1e-12 WHERE step = 6")),
    "an event missing": ("I4", lambda s: s.sql("DELETE FROM events WHERE type = 'stage' AND attempt = 1")),
    "a blob missing": ("I5", lambda s: blob(s).unlink()),
    "a blob cut short": ("I5", lambda s: os.truncate(blob(s), 10)),
    "a blob with another content": ("I5", lambda s: blob(s).write_bytes(b"x" * blob(s).stat().st_size)),
    "a wrong length": ("I5", lambda s: s.sql("UPDATE artifacts SET bytes = bytes + 1")),
    "a success without a model": ("I5", lambda s: s.sql("DELETE FROM models")),
    "a model of another run": ("I5", lambda s: s.sql(f"UPDATE jobs SET resolved_spec = {OTHER_SEED}")),
    "a cancel that was forgotten": (
        "I6",
        lambda s: s.given.update(cancels=[Cancel(s.waiting, time.time(), time.time(), "queued")]),
    ),
    "a cancel that took too long": ("I6", lambda s: s.given.update(cancels=[Cancel(s.done, 0, time.time() - 60, "running")])),
    "a start after a cancel": (
        "I6",
        lambda s: s.given.update(cancels=[Cancel(s.done, 0, time.time() - 60, "cancelled")], cancel_seconds=1000),
    ),
    "a cancelled job without a receipt": ("I6", lambda s: cancelled(s, "type = 'log'")),
    "a receipt for what is still there": ("I6", lambda s: cancelled(s, "data = jsonb_set(data, '{gone}', 'false')")),
    "a receipt for what was not cancelled": (
        "I6", lambda s: s.sql("UPDATE events SET type = 'resources.released' WHERE job_id = DONE AND seq = 1"),
    ),
    "a fault of the API's own": ("I7", lambda s: s.given.update(faulty_answers=["GET /v1/jobs: 500"])),
    "a trainer that outlived its worker": ("I8", lambda s: s.given.update(orphans=[4711])),
}  # fmt: skip


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_checker_sees(stage: Stage, corruption: str) -> None:
    invariant, corrupt = CORRUPTIONS[corruption]
    corrupt(stage)
    assert invariant in stage.seen()


def test_each_invariant_has_been_seen_violated() -> None:
    assert {invariant for invariant, _ in CORRUPTIONS.values()} == {f"I{number}" for number in range(1, 9)}


def test_the_rig_finds_a_trainer_without_its_worker(tmp_path: Path) -> None:
    folder = type("Folder", (), {"home": tmp_path, "run": tmp_path})()
    rig = object.__new__(Rig)
    rig.data, rig.workers, rig.folder = tmp_path, [], folder
    lone = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env={"HOME": str(tmp_path / "home"), MARK: "1"}
    )
    try:
        deadline = time.monotonic() + 30
        while rig.orphans() != [lone.pid]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        lone.kill()
        lone.wait()
    assert rig.orphans() == []


def test_a_row_that_the_wrong_attempt_writes_is_seen(stage: Stage) -> None:
    """Past the service's own fence, which is taken away."""
    with psycopg.connect(db.url(), autocommit=True) as connection, connection.transaction(force_rollback=True):
        connection.execute(witness.WATCH)
        stale = f"INSERT INTO metrics (job_id, name, step, attempt, value) VALUES ('{stage.done}', 'loss', 3, 1, 0)"
        stale += " ON CONFLICT (job_id, name, step) DO UPDATE SET attempt = excluded.attempt"
        for verb in ("insert", "update"):
            connection.execute(f"DROP TRIGGER metrics_fence_{verb} ON metrics")  # type: ignore[arg-type]
        connection.execute(stale)  # type: ignore[arg-type]
        (found,) = checker.no_write_comes_from_another_attempt(checker.Scene(connection, settings().store))
        assert (found.invariant, found.job_id) == ("I3", stage.done)
        assert found.what == "metrics of attempt 1 were written when it was succeeded in attempt 2"


def test_a_chain_is_what_its_seed_says() -> None:
    first = hashlib.sha256(b"4 target").hexdigest()
    second = hashlib.sha256(first.encode()).hexdigest()
    assert chain.values(4, "target", 1) == [int(second[:12], 16) / 2**48]
    assert chain.values(4, "target", 5)[:2] == chain.values(4, "target", 2)
    assert chain.values(4, "source", 1) != chain.values(4, "target", 1)
