"""Jobs: submitted, claimed, beaten, finished, swept. The only writer of a job's state.

Postgres is the truth and its clock the only clock. A worker owns a job while `attempt` is its own; every write that it makes
names that attempt under a lock of the job's row, and is refused (`Stale`) once another attempt, or the end, has come.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.orm import Session

from app import artifacts, assignments, events, ids, models, queue
from app.db import after_commit, stream, transaction
from app.errors import Conflict, NotFound
from app.settings import settings
from app.spec.base import plain
from app.spec.failures import FAILURES, failure
from app.states import MOVES, TERMINAL, JobState, is_terminal
from app.tables import Attempt, Job, Worker

Wanted = Literal["cancel", "pause"]

HELD_NOTHING: Mapping[str, Any] = {
    "pid": None,
    "gone": True,
    "device_memory": {"before_bytes": None, "after_bytes": None},
    "milliseconds": 0,
}
"""The release report of a cancelled job that had no process, or none any more: its lease is over, or it had ended by itself."""

LONGEST_DELAY = 300.0
"""After the n-th failed attempt a job waits 2ⁿ seconds, at most so many; half of the delay is random, so that jobs that failed together
do not all come back together."""

_SWEEP_LOCK = 7_265_718
_MOST_WAKES = 50


class Stale(Exception):
    """The attempt no longer owns its job: another one does, or the job has ended. Write nothing more."""


@dataclass(frozen=True)
class Claim:
    """The right to run a job, for as long as its lease is extended."""

    job_id: str
    attempt: int
    kind: str
    worker_id: str
    max_seconds: int


@dataclass(frozen=True)
class Heartbeat:
    """The lease was extended. `wanted` is what a client has asked for meanwhile."""

    wanted: Wanted | None
    discard: bool


@dataclass(frozen=True)
class Swept:
    """What a sweep did; all zero when another process was sweeping."""

    requeued: int = 0
    ended: int = 0
    woken: int = 0


# ---------------------------------------------------------------- what clients ask for


def submit(session: Session, body: object, key: str | None = None, key_hash: str | None = None) -> Job:
    """Records a job, queued; workers are woken after the commit. Keys are the concern of `app/submissions.py`.

    Raises:
        Invalid: with every fault in the body; nothing is stored.
        Untraced: a network in it was never looked at before; nothing is stored.
    """
    spec = assignments.resolve(session, body)
    resolved = plain(spec)
    job = Job(
        id=ids.new("job"),
        kind=spec.kind,
        name=spec.name,
        tags=list(spec.tags),
        meta=dict(spec.metadata),
        spec=body,
        resolved_spec=resolved,
        datasets=assignments.named_datasets(session, spec),
        seed=(resolved.get("training") or {}).get("seed", 0),
        state=JobState.QUEUED,
        priority=spec.priority,
        device=spec.device,
        backend=spec.backend,
        max_seconds=spec.max_seconds,
        max_attempts=spec.max_attempts,
        idempotency_key=key,
        idempotency_hash=key_hash,
    )
    session.add(job)
    session.flush()
    _announce(session, job, {"state": JobState.QUEUED})
    session.refresh(job)
    after_commit(session, queue.wake)
    return job


def validate(session: Session, body: object) -> dict[str, Any]:
    """The resolved spec of a body, as `submit` would run it. Raises Invalid and Untraced; stores nothing."""
    return plain(assignments.resolve(session, body))


def get(session: Session, job_id: str, lock: bool = False) -> Job:
    """The job; with `lock`, locked until the transaction ends. Raises NotFound."""
    job = session.get(Job, job_id, with_for_update=lock)
    if job is None:
        raise NotFound("There is no job with this id. GET /v1/jobs lists the jobs.")
    return job


def page(
    session: Session,
    *,
    limit: int = 50,
    before: str | None = None,
    kind: str | None = None,
    state: str | None = None,
    name: str | None = None,
    tag: str | None = None,
) -> Generator[Job]:
    """Newest first: jobs with ids below `before` that match all that is given. A few at a time are in memory."""
    conditions: list[ColumnElement[bool]] = []
    for column, value in ((Job.kind, kind), (Job.state, state), (Job.name, name)):
        if value is not None:
            conditions.append(column == value)
    if tag is not None:
        conditions.append(Job.tags.contains([tag]))
    if before is not None:
        conditions.append(Job.id < before)
    query = select(Job).where(*conditions).order_by(Job.id.desc()).limit(limit)
    return stream(session, query)


def attempts(session: Session, job_id: str) -> Sequence[Attempt]:
    return session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.attempt)).all()


def cancel(session: Session, job_id: str, discard: bool = False) -> tuple[Job, bool]:
    """Cancels at once a job that does not run; asks the worker to stop one that does. Whether anything changed.

    Models of finished stages stay, unless `discard`, and even then where another job inherits from them.
    Raises NotFound, or Conflict when the job ended otherwise.
    """
    job = get(session, job_id, lock=True)
    if job.state == JobState.CANCELLED:
        return job, False
    if is_terminal(job.state):
        raise Conflict(f"This job has already {job.state}; only jobs that have not ended can be cancelled.")
    if job.state == JobState.RUNNING:
        changed = job.wanted != "cancel" or (discard and not job.discard)
        job.wanted, job.discard = "cancel", job.discard or discard
        if changed:
            _announce(session, job, {"wanted": "cancel"})
        return job, changed
    job.discard = discard
    _move(session, job, JobState.CANCELLED, reason="cancelled_by_client")
    return job, True


def pause(session: Session, job_id: str) -> tuple[Job, bool]:
    """Holds back a job that is queued; asks the worker to stop one that runs, which is charged nothing. Whether anything changed.

    Raises NotFound, or Conflict when the job has ended or is being cancelled.
    """
    job = get(session, job_id, lock=True)
    _refuse_unless_it_goes_on(job, "paused")
    if job.state == JobState.PAUSED or job.wanted == "pause":
        return job, False
    if job.state == JobState.RUNNING:
        job.wanted = "pause"
        _announce(session, job, {"wanted": "pause"})
    else:
        _move(session, job, JobState.PAUSED, reason="paused_by_client")
    return job, True


def resume(session: Session, job_id: str) -> tuple[Job, bool]:
    """Puts a paused job at the end of the queue, or takes back the wish to pause one that runs. Whether anything changed.

    A worker that has begun to stop it gives it back to the queue instead. Raises as `pause`.
    """
    job = get(session, job_id, lock=True)
    _refuse_unless_it_goes_on(job, "resumed")
    if job.state == JobState.PAUSED:
        job.run_after = func.clock_timestamp()
        _move(session, job, JobState.QUEUED, reason="resumed_by_client")
        after_commit(session, queue.wake)
        return job, True
    if job.wanted == "pause":
        job.wanted = None
        _announce(session, job, {"wanted": None})
        return job, True
    return job, False


def delete(session: Session, job_id: str) -> None:
    """Forgets a finished job with its models, metrics, events and bytes.

    Raises NotFound, or Conflict while it runs or others inherit from it.
    """
    job = get(session, job_id, lock=True)
    if not is_terminal(job.state):
        raise Conflict(f"This job is {job.state}. Cancel it first: POST /v1/jobs/ID/cancel.")
    heirs = models.dependents(session, job_id)
    if heirs:
        raise Conflict(f"Still needed by {', '.join(heirs[:20])}. Delete those first.")
    _forget_files(session, job_id, keep=())
    session.delete(job)


# ---------------------------------------------------------------- what workers do


def claim(worker_id: str, device: str = "cpu", backends: Sequence[str] = ("tensorflow",)) -> Claim | None:
    """Takes the next runnable job: largest priority, then longest queued. None when there is none for this device and these backends."""
    with transaction() as session:
        suits = Job.device.in_(["auto", device]) & Job.backend.in_(["auto", *backends])
        runnable = (
            select(Job)
            .where(Job.state == JobState.QUEUED, Job.run_after <= func.clock_timestamp(), suits)
            .order_by(Job.priority.desc(), Job.queued_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        job = session.scalars(runnable).one_or_none()
        if job is None:
            return None
        job.attempt += 1
        job.worker_id = worker_id
        job.started_at = job.started_at or func.clock_timestamp()
        job.lease_until = func.clock_timestamp() + _seconds(settings().lease_seconds)
        session.add(Attempt(job_id=job.id, attempt=job.attempt, worker_id=worker_id))
        _move(session, job, JobState.RUNNING, reason=None)
        return Claim(job.id, job.attempt, job.kind, worker_id, job.max_seconds)


def heartbeat(claim: Claim) -> Heartbeat | None:
    """Extends the lease. None: the job is lost to this attempt, kill the trainer and write nothing."""
    with transaction() as session:
        row = session.execute(
            update(Job)
            .where(
                Job.id == claim.job_id,
                Job.attempt == claim.attempt,
                Job.state == JobState.RUNNING,
                Job.lease_until > func.clock_timestamp(),
            )
            .values(lease_until=func.clock_timestamp() + _seconds(settings().lease_seconds))
            .returning(Job.wanted, Job.discard)
        ).one_or_none()
        session.execute(
            update(Worker)
            .where(Worker.id == claim.worker_id)
            .values(heartbeat_at=func.clock_timestamp(), job_id=claim.job_id)
        )
        return None if row is None else Heartbeat(row.wanted, row.discard)


def fence(session: Session, claim: Claim) -> Job:
    """The job, locked until the transaction ends, for a write of this attempt.

    Raises:
        Stale: the attempt no longer owns it.
    """
    job = session.scalars(
        select(Job)
        .where(Job.id == claim.job_id, Job.attempt == claim.attempt, Job.state == JobState.RUNNING)
        .with_for_update()
    ).one_or_none()
    if job is None:
        raise Stale(claim.job_id)
    return job


def note_start(session: Session, claim: Claim, environment: dict[str, Any]) -> None:
    """The trainer has read the job and runs on `environment`."""
    job = fence(session, claim)
    job.environment = environment
    _announce(session, job, {"environment": environment}, "started", claim.attempt)


def note_stage(session: Session, claim: Claim, stage: str) -> None:
    """The trainer turns to `stage`."""
    job = fence(session, claim)
    job.stage = stage
    _announce(session, job, {"stage": stage}, "stage", claim.attempt)


def note_progress(session: Session, claim: Claim, progress: dict[str, Any], latest: dict[str, Any]) -> None:
    """Records how far the trainer is. No event is stored: progress is not history."""
    job = fence(session, claim)
    job.progress = progress
    job.latest = {**(job.latest or {}), **latest}
    job.changed_at = func.clock_timestamp()
    session.flush()
    session.execute(text("SELECT pg_notify(:channel, :job)"), {"channel": events.CHANNEL, "job": job.id})


def note_resume(session: Session, claim: Claim, stage: str, step: int) -> None:
    """The attempt goes on with a stage from a checkpoint."""
    job = fence(session, claim)
    row = session.get_one(Attempt, (claim.job_id, claim.attempt))
    row.resumed = {**(row.resumed or {}), stage: step}
    _announce(session, job, {"stage": stage, "step": step}, "resumed", claim.attempt)


def note(session: Session, claim: Claim, kind: str, data: dict[str, Any]) -> None:
    """Any other event of an attempt: a checkpoint, a warning, the end of an epoch, a kept model."""
    _announce(session, fence(session, claim), data, kind, claim.attempt)


def finish(
    session: Session,
    claim: Claim,
    state: JobState,
    *,
    reason: str,
    error: dict[str, Any] | None = None,
    best: dict[str, Any] | None = None,
    usage: dict[str, Any] | None = None,
    released: Mapping[str, Any] | None = None,
) -> Job:
    """The last word of an attempt that ends its job. `released` is the release report of a cancel. Raises Stale."""
    job = fence(session, claim)
    _end_attempt(session, claim.job_id, claim.attempt, str(state), error or {"reason": reason})
    job.error = error if state == JobState.FAILED else None
    job.best, job.usage = best or job.best, usage or job.usage
    if state == JobState.FAILED:
        job.failures += 1
    if state == JobState.SUCCEEDED:
        job.progress = {**(job.progress or {}), "fraction": 1.0, "eta_seconds": 0.0}
    _move(session, job, state, reason=reason, released=released)
    return job


def requeue(session: Session, claim: Claim, *, outcome: str, charge: bool, detail: dict[str, Any] | None = None) -> Job:
    """Gives a job back, in the state that `requeued_as` says. `charge` counts a failure, with a growing delay; a drain and a
    pause are not charged. Raises Stale."""
    job = fence(session, claim)
    _end_attempt(session, claim.job_id, claim.attempt, outcome, detail)
    _again(session, job, outcome, charge, detail)
    return job


def requeued_as(job: Job, charge: bool) -> JobState:
    """The state of a running job that is given back: cancelled, where a client asked for it; else failed, when the budget is
    spent; else paused, where a client asked for it; else queued."""
    if job.wanted == "cancel":
        return JobState.CANCELLED
    if charge and job.failures + 1 >= job.max_attempts:
        return JobState.FAILED
    return JobState.PAUSED if job.wanted == "pause" else JobState.QUEUED


def sweep() -> Swept:
    """Takes jobs back from workers that are gone, and sends wake-ups that are missing. One process at a time.

    Others do nothing.
    """
    with transaction() as session:
        if not session.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _SWEEP_LOCK}).scalar_one():
            return Swept()
        expired = session.scalars(
            select(Job)
            .where(Job.state == JobState.RUNNING, Job.lease_until < func.clock_timestamp())
            .with_for_update(skip_locked=True)
            .limit(500)
        ).all()
        for job in expired:
            detail = {"worker": job.worker_id}
            _end_attempt(session, job.id, job.attempt, "worker_lost", detail)
            _again(session, job, "worker_lost", charge=True, detail=detail)
        session.flush()
        runnable = session.execute(
            select(func.count())
            .select_from(Job)
            .where(Job.state == JobState.QUEUED, Job.run_after <= func.clock_timestamp())
        ).scalar_one()
    waiting = queue.length() if runnable else None
    missing = min(_MOST_WAKES, runnable - waiting) if waiting is not None else 0
    woken = missing if missing > 0 and queue.wake(missing) else 0
    ended = sum(is_terminal(job.state) for job in expired)
    return Swept(len(expired) - ended, ended, woken)


# ---------------------------------------------------------------- how states change


def _move(
    session: Session, job: Job, state: JobState, *, reason: str | None, released: Mapping[str, Any] | None = None
) -> None:
    """The one place where a job's state changes. The database's trigger refuses what `MOVES` does not allow.

    A cancel first announces the resources that it has set free: `released`, or none.
    """
    if state not in MOVES[JobState(job.state)]:
        raise AssertionError(f"no move from {job.state} to {state}")
    if state == JobState.CANCELLED:
        _announce(session, job, dict(released or HELD_NOTHING), "resources.released")
        if job.discard and not models.dependents(session, job.id):
            _forget_files(session, job.id, keep=("trainer.log",))
    if state in TERMINAL:
        with session.no_autoflush:  # the row is whole only below
            job.model_id = models.outcome(session, job.id)
    job.state, job.reason, job.stage = state, reason, None
    if state != JobState.RUNNING:
        job.lease_until, job.worker_id, job.wanted = None, None, None
    if state == JobState.QUEUED:
        job.queued_at, job.progress = func.clock_timestamp(), None
    if state in TERMINAL:
        job.finished_at = func.clock_timestamp()
    data = {
        "state": str(state),
        "reason": reason,
        "error": {key: job.error.get(key) for key in ("code", "message")} if job.error else None,
    }
    _announce(session, job, {key: value for key, value in data.items() if value is not None})


def _again(session: Session, job: Job, outcome: str, charge: bool, detail: dict[str, Any] | None) -> None:
    state = requeued_as(job, charge)
    if charge:
        job.failures += 1
    if state == JobState.CANCELLED:
        _move(session, job, state, reason="cancelled_by_client")
    elif state == JobState.FAILED:
        job.error = _spent(job, outcome, detail)
        _move(session, job, state, reason="attempts_spent")
    elif state == JobState.PAUSED:
        _move(session, job, state, reason="paused_by_client")
    else:
        delay = min(LONGEST_DELAY, 2.0**job.failures) if charge else 0.0
        by_chance = func.make_interval(0, 0, 0, 0, 0, 0, delay / 2 * func.random())
        job.run_after = func.clock_timestamp() + _seconds(delay / 2) + by_chance
        _move(session, job, state, reason="resumed_by_client" if outcome == "paused" else outcome)
        after_commit(session, queue.wake)


def _forget_files(session: Session, job_id: str, keep: Sequence[str]) -> None:
    """Removes a job's models and artifacts but those named in `keep`."""
    session.flush()
    files = [file for file in artifacts.of_job(session, job_id) if file.name not in keep]
    models.forget(session, models.of_job(session, job_id), files)


def _spent(job: Job, outcome: str, detail: dict[str, Any] | None) -> dict[str, Any]:
    """The error of a job that has no attempt left: the last one's own, else what its outcome means."""
    if detail and "code" in detail:
        return {**detail, "message": f"{detail['message']} ({job.failures} of {job.max_attempts} attempts failed)"}
    code = outcome if outcome in FAILURES else "worker_lost"
    message = f"{FAILURES[code].title}: {job.failures} of {job.max_attempts} attempts ended this way"
    return failure(code, message, stage=job.stage)


def _end_attempt(session: Session, job_id: str, attempt: int, outcome: str, detail: dict[str, Any] | None) -> None:
    """Raises Stale where the attempt has ended already."""
    open_one = Attempt.job_id == job_id, Attempt.attempt == attempt, Attempt.ended_at.is_(None)
    ended = {"ended_at": func.clock_timestamp(), "outcome": outcome, "detail": detail}
    if session.execute(update(Attempt).where(*open_one).values(ended)).rowcount != 1:  # type: ignore[attr-defined]
        raise Stale(job_id)


def _announce(
    session: Session, job: Job, data: dict[str, Any], kind: str = "state", attempt: int | None = None
) -> None:
    """`attempt` is the writer's own number, which the database compares with the job's."""
    job.changed_at = func.clock_timestamp()
    session.flush()
    events.add(session, job.id, kind, data, job.attempt if attempt is None else attempt)


def _refuse_unless_it_goes_on(job: Job, verb: str) -> None:
    if is_terminal(job.state):
        raise Conflict(f"This job has already {job.state}; only jobs that have not ended can be {verb}.")
    if job.wanted == "cancel":
        raise Conflict(f"This job is being cancelled and cannot be {verb}.")


def _seconds(seconds: float) -> Any:
    return literal(timedelta(seconds=seconds), INTERVAL)
