"""Why a job does not run, and how many go before it."""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app import workers
from app.states import JobState
from app.tables import Job


def position(session: Session, job: Job) -> int | None:
    """How many queued jobs would be claimed before this one; None unless it is queued."""
    if job.state != JobState.QUEUED:
        return None
    ahead = or_(
        Job.priority > job.priority,
        (Job.priority == job.priority)
        & or_(Job.queued_at < job.queued_at, (Job.queued_at == job.queued_at) & (Job.id < job.id)),
    )
    return session.execute(
        select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED, ahead)
    ).scalar_one()


def waits_for(session: Session, job: Job) -> str | None:
    """What a job that is queued or paused waits for: `resume`, `backing_off`, `no_worker`, `no_worker_for_device`,
    `no_worker_for_backend`, `no_room` (every worker that could run it has a full disk) or `worker_busy`. None for all others."""
    if job.state == JobState.PAUSED:
        return "resume"
    if job.state != JobState.QUEUED:
        return None
    # Nothing is read of the job's row again: somebody may have deleted it since it was.
    if job.run_after > session.execute(select(func.clock_timestamp())).scalar_one():
        return "backing_off"
    there = workers.online(session)
    if not there:
        return "no_worker"
    fit = [worker for worker in there if job.device in ("auto", worker.device)]
    if not fit:
        return "no_worker_for_device"
    fit = [worker for worker in fit if job.backend == "auto" or job.backend in worker.backends]
    if not fit:
        return "no_worker_for_backend"
    return "worker_busy" if any(worker.has_room for worker in fit) else "no_room"
