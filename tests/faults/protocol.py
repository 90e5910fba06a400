"""16: the job protocol as a state machine: any order of calls, on a real Postgres, compared with a pure model after each of them.

The model is what app/jobs.py promises and shares nothing with it. Workers are only their claims, and old claims
go on trying: whatever they do must be refused. `tests/faults/test_protocol.py` runs it, and the scenario of that name at full length.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from app import db, jobs
from app.db import Session, transaction
from app.errors import Conflict
from app.jobs import Claim, Stale
from app.settings import settings as service_settings
from app.spec.failures import FAILURES
from app.states import JobState
from tests.faults import checker
from tests.faults.rig import TERMINAL

ERROR = {key: getattr(FAILURES["internal"], key) for key in ("code", "hint", "retryable")} | {
    "message": "it broke",
    "blame": "system",
}


@dataclass
class ModelJob:
    """One job as it must be. `turn` is its place in the queue, `late` says that it waits out a delay."""

    turn: int
    budget: int
    state: str = "queued"
    attempt: int = 0
    failures: int = 0
    wanted: str | None = None
    expired: bool = False
    late: bool = False


@dataclass
class Model:
    """The protocol in sixty lines: no lock, no clock, no database."""

    jobs: dict[str, ModelJob] = field(default_factory=dict)
    turns: int = 0

    def submit(self, job_id: str, budget: int) -> None:
        self.turns += 1
        self.jobs[job_id] = ModelJob(self.turns, budget)

    def claim(self) -> str | None:
        runnable = [(job.turn, job_id) for job_id, job in self.jobs.items() if job.state == "queued" and not job.late]
        if not runnable:
            return None
        job = self.jobs[min(runnable)[1]]
        job.state, job.attempt, job.expired = "running", job.attempt + 1, False
        return min(runnable)[1]

    def owns(self, claim: Claim) -> bool:
        job = self.jobs[claim.job_id]
        return job.state == "running" and job.attempt == claim.attempt

    def heartbeats(self, claim: Claim) -> bool:
        return self.owns(claim) and not self.jobs[claim.job_id].expired

    def end(self, job: ModelJob, state: str) -> None:
        job.failures += state == "failed"
        job.state, job.wanted = state, None

    def give_back(self, job: ModelJob, charge: bool) -> None:
        job.failures += charge
        spent = charge and job.failures >= job.budget
        job.state = (
            "cancelled"
            if job.wanted == "cancel"
            else "failed"
            if spent
            else "paused"
            if job.wanted == "pause"
            else "queued"
        )
        job.wanted = None
        if job.state == "queued":
            self.turns += 1
            job.turn, job.late = self.turns, charge

    def sweep(self) -> None:
        for _, job in sorted(self.jobs.items()):
            if job.state == "running" and job.expired:
                self.give_back(job, charge=True)

    def cancel(self, job: ModelJob) -> None:
        if job.state == "running":
            job.wanted = "cancel"
        else:
            self.end(job, "cancelled")

    def pause(self, job: ModelJob) -> None:
        if job.state == "running":
            job.wanted = "pause"
        else:
            job.state = "paused"

    def resume(self, job: ModelJob) -> None:
        job.wanted = None
        if job.state == "paused":
            self.turns += 1
            job.state, job.turn, job.late = "queued", self.turns, False


RUN_LENGTH = 40
LATE = "(state = 'queued' AND run_after > queued_at + interval '0.5 seconds')"
MOST_JOBS = 2  # unfinished at once: few jobs meet more often


def run_protocol(steps: int, seed: int) -> int:
    """About so many calls, in runs of forty; how many there were. A divergence is raised, as short as Hypothesis can make it."""
    before = Protocol.steps
    shrinks = os.environ.get("BEQUEST_FAULTS_SHRINK") != "0"  # to know *that* it diverges, the first find is enough
    phases = (Phase.generate, Phase.shrink) if shrinks else (Phase.generate,)
    quiet = {
        "deadline": None,
        "database": None,
        "suppress_health_check": list(HealthCheck),
        "report_multiple_bugs": False,
    }
    length = settings(max_examples=max(1, steps // RUN_LENGTH), stateful_step_count=RUN_LENGTH, phases=phases, **quiet)
    lease, service_settings().lease_seconds = service_settings().lease_seconds, 3600  # only `lease_runs_out` ends one
    try:
        run_state_machine_as_test(seeded(seed)(Protocol), settings=length)
    finally:
        service_settings().lease_seconds = lease
    made = Protocol.steps - before
    assert made >= steps // 2, f"only {made} calls of {steps} were made"
    return made


def while_some(*states: str) -> Any:
    """A rule is worth its call only while a job is in one of these states."""
    return precondition(lambda self: any(job.state in states for job in self.model.jobs.values()))


class Protocol(RuleBasedStateMachine):
    """Calls of clients, workers and sweeps in any order."""

    steps = 0
    ids = Bundle("ids")
    claims = Bundle("claims")

    @initialize()
    def nothing(self) -> None:
        self.model = Model()
        self.made: list[Claim] = []
        with transaction() as session:
            session.execute(text("TRUNCATE jobs CASCADE"))

    # ------------------------------------------------------------ clients

    @precondition(lambda self: sum(job.state not in TERMINAL for job in self.model.jobs.values()) < MOST_JOBS)
    @rule(target=ids, budget=st.integers(1, 3))
    def submit(self, budget: int) -> str:
        with transaction() as session:
            job_id = jobs.submit(session, {"kind": "chain", "max_attempts": budget}).id
        self.model.submit(job_id, budget)
        return job_id

    @while_some("queued", "running", "paused")
    @rule(job_id=ids, discard=st.booleans())
    def cancel(self, job_id: str, discard: bool) -> None:
        self.ask(
            job_id,
            lambda session: jobs.cancel(session, job_id, discard),
            self.model.cancel,
            ("cancelled",),
            "cancelled",
        )

    @while_some("queued", "running")
    @rule(job_id=ids)
    def pause(self, job_id: str) -> None:
        self.ask(job_id, lambda session: jobs.pause(session, job_id), self.model.pause, ("paused",))

    @while_some("paused", "running")
    @rule(job_id=ids)
    def resume(self, job_id: str) -> None:
        self.ask(job_id, lambda session: jobs.resume(session, job_id), self.model.resume, ("queued",))

    def ask(
        self,
        job_id: str,
        call: Callable[[Session], Any],
        expected: Callable[[ModelJob], None],
        nothing_to_do: tuple[str, ...],
        well_ended: str | None = None,
    ) -> None:
        """Refused where the job has ended otherwise or is being cancelled, except that a cancel may be asked for twice."""
        job = self.model.jobs[job_id]
        is_over = job.state in TERMINAL and job.state != well_ended
        allowed = not is_over and (well_ended is not None or job.wanted != "cancel")
        try:
            with transaction() as session:
                call(session)
            assert allowed, f"{job} was not refused"
        except Conflict:
            assert not allowed, f"{job} was refused"
            return
        if job.state not in nothing_to_do:
            expected(job)

    # ------------------------------------------------------------ workers

    @while_some("queued")
    @rule(target=claims, worker=st.sampled_from(("a-1-0", "b-2-0", "c-3-0")))
    def claim(self, worker: str) -> Claim | MultipleResults[Claim]:
        claim, expected = jobs.claim(worker), self.model.claim()
        assert (claim and claim.job_id) == expected
        if claim is None:
            return multiple()
        assert claim.attempt == self.model.jobs[claim.job_id].attempt
        self.made.append(claim)
        return claim

    @while_some("running")
    @rule(target=claims, claim=claims, lost=st.booleans())
    def next_attempt(self, claim: Claim, lost: bool) -> Claim | MultipleResults[Claim]:
        """The shortest way to a claim that is stale, which single calls seldom find."""
        if lost:
            self.lease_runs_out(claim)
            self.sweep()
            self.claim("e-5-0")  # another job's, if any: this one waits out its delay
            self.delay_is_over(claim.job_id)
        else:
            self.requeue(claim, charge=False)
        return self.claim("d-4-0")

    @while_some("running")
    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        heartbeat = jobs.heartbeat(claim)
        assert (heartbeat is not None) == self.model.heartbeats(claim)
        assert heartbeat is None or heartbeat.wanted == self.model.jobs[claim.job_id].wanted

    @while_some("running")
    @rule(claim=claims, state=st.sampled_from((JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)))
    def finish(self, claim: Claim, state: JobState) -> None:
        error = ERROR if state == JobState.FAILED else None
        self.write(
            claim,
            lambda session, claim: jobs.finish(session, claim, state, reason="it ended", error=error),
            lambda job: self.model.end(job, str(state)),
        )

    @while_some("running")
    @rule(claim=claims, charge=st.booleans())
    def requeue(self, claim: Claim, charge: bool) -> None:
        outcome = "crashed" if charge else "drained"
        self.write(
            claim,
            lambda session, claim: jobs.requeue(session, claim, outcome=outcome, charge=charge),
            lambda job: self.model.give_back(job, charge),
        )

    @while_some("running")
    @rule(claim=claims, kind=st.sampled_from(("stage", "progress", "resume", "start", "warning")))
    def report(self, claim: Claim, kind: str) -> None:
        calls: dict[str, Callable[[Session, Claim], Any]] = {
            "stage": lambda session, claim: jobs.note_stage(session, claim, "target"),
            "progress": lambda session, claim: jobs.note_progress(session, claim, {"step": 1}, {}),
            "resume": lambda session, claim: jobs.note_resume(session, claim, "target", 1),
            "start": lambda session, claim: jobs.note_start(session, claim, {}),
            "warning": lambda session, claim: jobs.note(session, claim, "warning", {}),
        }
        self.write(claim, calls[kind], lambda job: None)

    def write(self, claim: Claim, call: Callable[[Session, Claim], Any], expected: Callable[[ModelJob], None]) -> None:
        """Accepted from the owner alone; a stale one is told so, and by the fence, not by a trigger behind it."""
        owns = self.model.owns(claim)
        try:
            with transaction() as session:
                call(session, claim)
            assert owns, f"a write of {claim} was accepted, the job is {self.model.jobs[claim.job_id]}"
        except Stale:
            assert not owns, f"a write of {claim} was refused, the job is {self.model.jobs[claim.job_id]}"
            return
        expected(self.model.jobs[claim.job_id])

    # ------------------------------------------------------------ time

    @while_some("running")
    @rule(claim=claims)
    def lease_runs_out(self, claim: Claim) -> None:
        job = self.model.jobs[claim.job_id]
        job.expired = job.expired or job.state == "running"
        self.execute(
            "UPDATE jobs SET lease_until = now() - interval '1 hour' WHERE id = :id AND state = 'running'", claim.job_id
        )
        assert jobs.heartbeat(claim) is None, "a beat that came too late was accepted"

    @precondition(lambda self: any(job.late for job in self.model.jobs.values()))
    @rule(job_id=ids)
    def delay_is_over(self, job_id: str) -> None:
        self.model.jobs[job_id].late = False
        self.execute("UPDATE jobs SET run_after = queued_at WHERE id = :id AND state = 'queued'", job_id)

    @while_some("running")
    @rule()
    def sweep(self) -> None:
        before = {job_id: job.state for job_id, job in self.model.jobs.items()}
        swept = jobs.sweep()
        self.model.sweep()
        taken = [job.state for job_id, job in self.model.jobs.items() if job.state != before[job_id]]
        ended = sum(state in TERMINAL for state in taken)
        assert (swept.requeued, swept.ended) == (len(taken) - ended, ended)

    # ------------------------------------------------------------ what must hold after each step

    @invariant()
    def the_database_is_as_the_model_says(self) -> None:
        Protocol.steps += 1
        # A delay is real time, which no model has: it is made an hour, so that only `delay_is_over` ends it.
        self.execute(f"UPDATE jobs SET run_after = now() + interval '1 hour' WHERE {LATE}")
        with transaction() as session:
            found = session.execute(text(f"SELECT id, state, attempt, failures, wanted, {LATE} FROM jobs"))
            rows = {row[0]: tuple(row[1:]) for row in found}
        expected = {
            job_id: (job.state, job.attempt, job.failures, job.wanted, job.late and job.state == "queued")
            for job_id, job in self.model.jobs.items()
        }
        assert rows == expected

    @invariant()
    def who_owns_no_job_may_do_nothing(self) -> None:
        for claim in [claim for claim in self.made if not self.model.owns(claim)][-2:]:
            assert jobs.heartbeat(claim) is None
            self.write(claim, jobs.fence, lambda job: None)

    def teardown(self) -> None:
        """The checker agrees, at the end of each run."""
        with psycopg.connect(db.url(), autocommit=True) as connection:
            scene = checker.Scene(connection, Path())
            for holds in (
                checker.each_job_ends_once,
                checker.a_running_job_has_one_owner,
                checker.events_are_numbered_without_gaps,
            ):
                assert not list(holds(scene))

    def execute(self, statement: str, job_id: str | None = None) -> None:
        with transaction() as session:
            session.execute(text(statement), {"id": job_id} if job_id else {})
