"""What happened to a job, in order.

An event's number counts from 1 within its job and follows the order of the commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from app.tables import Event, Job

CHANNEL = "bequest_events"
"""Postgres notifies this channel with the job's id when an event is committed."""


def add(session: Session, job_id: str, kind: str, data: dict[str, Any] | None = None, attempt: int = 0) -> Event:
    """Adds an event in the caller's transaction. Locks the job's row, so that numbers follow commits."""
    seq = session.execute(
        update(Job).where(Job.id == job_id).values(last_event=Job.last_event + 1).returning(Job.last_event)
    ).scalar_one()
    event = Event(job_id=job_id, seq=seq, type=kind, data=data or {}, attempt=attempt)
    session.add(event)
    session.flush()
    session.execute(text("SELECT pg_notify(:channel, :job)"), {"channel": CHANNEL, "job": job_id})
    return event


def after(session: Session, job_id: str, seq: int = 0, limit: int = 500) -> Sequence[Event]:
    """Events numbered above `seq`, oldest first."""
    return session.scalars(
        select(Event).where(Event.job_id == job_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    ).all()
