"""Submitting: not more jobs than may wait, and under one key not more than one.

A key is part of the job's row: it lives as long as the job, and a unique index lets one of concurrent twins in while the others wait.
"""

from __future__ import annotations

import hashlib
import json

from psycopg.errors import UniqueViolation
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import jobs
from app.errors import Problem
from app.settings import settings
from app.tables import Job

_RETRY_AFTER_SECONDS = 10


def submit(session: Session, body: object, key: str | None = None) -> tuple[Job, bool]:
    """Records a job, queued; with a `key`, once: its first job answers every later submission. The job, and whether it is new.

    The first job is found however it stands by now, and also while no more jobs may wait. Bodies are compared as data: blanks and
    the order of an object's fields make no other body.

    Raises:
        Invalid: with every fault in the body. Nothing is stored, and the key stays free.
        Problem: 422, the key came with another body before; 429, as many jobs wait as may.
    """
    if key is None:
        _refuse_if_full(session)
        return jobs.submit(session, body), True
    digest = _digest(body)
    while (first := _first(session, key, digest)) is None:
        _refuse_if_full(session)
        try:
            with session.begin_nested():
                return jobs.submit(session, body, key, digest), True
        except IntegrityError as error:
            if not isinstance(error.orig, UniqueViolation):
                raise
            # A twin's transaction was quicker, and is committed by now.
    return first, False


def _first(session: Session, key: str, digest: str) -> Job | None:
    job = session.scalars(select(Job).where(Job.idempotency_key == key)).one_or_none()
    if job is not None and job.idempotency_hash != digest:
        raise Problem(
            "idempotency_key_reused",
            f"This Idempotency-Key came with another body before and made {job.id}. Use a new key for a new job.",
        )
    return job


def _refuse_if_full(session: Session) -> None:
    """Counts committed jobs: submissions that count at the same moment may all pass, so the limit can be exceeded by as many as
    the API holds transactions, 30 a process."""
    most = settings().max_queued
    # A literal, so that the planner sees that the partial index of queued jobs answers it.
    waiting = select(Job.id).where(text("state = 'queued'")).limit(most).subquery()
    if session.execute(select(func.count()).select_from(waiting)).scalar_one() >= most:
        raise Problem(
            "queue_full",
            f"{most} jobs are queued, as many as may be (BEQUEST_MAX_QUEUED). Nothing was stored; submit it again later.",
            headers={"retry-after": str(_RETRY_AFTER_SECONDS)},
        )


def _digest(body: object) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
