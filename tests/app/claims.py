"""Jobs that are queued, claimed, read, and whose lease has run out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from app import ids, jobs
from app.db import transaction
from app.jobs import Claim
from app.tables import Job


def queued(**columns: Any) -> str:
    given = {"max_seconds": 60, "max_attempts": 3, **columns}
    with transaction() as session:
        job = Job(id=ids.new("job"), kind="light", spec={}, resolved_spec={}, state="queued", **given)
        session.add(job)
    return job.id


def claimed(**columns: Any) -> Claim:
    queued(**columns)
    claim = jobs.claim("worker-1")
    assert claim is not None
    return claim


def read(job_id: str) -> Job:
    with transaction() as session:
        return jobs.get(session, job_id)


def expire(claim: Claim) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 second' WHERE id = :id"),
            {"id": claim.job_id},
        )
