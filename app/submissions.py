"""Submitting: not more jobs than may wait, and under one key not more than one.

A key is part of the job's row: it lives as long as the job, and a unique index lets one of concurrent twins in while the others wait.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TypeVar

from psycopg.errors import UniqueViolation
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import jobs
from app.errors import Problem
from app.settings import settings
from app.tables import Job

_RETRY_AFTER_SECONDS = 10

Made = TypeVar("Made")


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
    key_hash = digest(body)
    while (first := _first(session, key, key_hash)) is None:
        _refuse_if_full(session)
        made = unless_a_twin(session, lambda: jobs.submit(session, body, key, key_hash))
        if made is not None:
            return made, True
    return first, False


def unless_a_twin(session: Session, make: Callable[[], Made]) -> Made | None:
    """What `make` has stored; None where another transaction with the same key was quicker, and is committed by now."""
    try:
        with session.begin_nested():
            return make()
    except IntegrityError as error:
        if not isinstance(error.orig, UniqueViolation):
            raise
        return None


def digest(body: object) -> str:
    """What two bodies have in common that are the same as data."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def reused(made: str) -> Problem:
    """A key came again with another body than that of `made`."""
    return Problem(
        "idempotency_key_reused",
        f"This Idempotency-Key came with another body before and made {made}. Use a new key for a new job.",
    )


def _first(session: Session, key: str, key_hash: str) -> Job | None:
    job = session.scalars(select(Job).where(Job.idempotency_key == key)).one_or_none()
    if job is not None and job.idempotency_hash != key_hash:
        raise reused(job.id)
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
