"""Worker processes: who is there, on which device, and when last heard of. Liveness of a job is its lease, not this."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, literal, select
from sqlalchemy.dialects.postgresql import INTERVAL, insert
from sqlalchemy.orm import Session

from app.settings import settings
from app.tables import Worker


def hello(
    session: Session,
    worker_id: str,
    *,
    host: str,
    pid: int,
    device: str,
    device_name: str | None,
    backends: Sequence[str] = (),
    memory_bytes: int | None,
    version: str,
    job_id: str | None,
    has_room: bool = True,
) -> None:
    """Records that a worker lives, and forgets those silent for an hour."""
    values: dict[str, Any] = {"host": host, "pid": pid, "device": device, "device_name": device_name}
    values |= {
        "backends": list(backends),
        "memory_bytes": memory_bytes,
        "version": version,
        "job_id": job_id,
        "has_room": has_room,
    }
    statement = insert(Worker).values(id=worker_id, **values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Worker.id], set_={**values, "heartbeat_at": func.clock_timestamp()}
        )
    )
    session.execute(delete(Worker).where(Worker.heartbeat_at < _ago(3600)))


def goodbye(session: Session, worker_id: str) -> None:
    session.execute(delete(Worker).where(Worker.id == worker_id))


def online(session: Session) -> Sequence[Worker]:
    """Workers heard of within a lease's time."""
    return session.scalars(
        select(Worker)
        .where(Worker.heartbeat_at > _ago(settings().lease_seconds))
        .order_by(Worker.started_at, Worker.id)
    ).all()


def _ago(seconds: float) -> ColumnElement[datetime]:
    return func.clock_timestamp() - literal(timedelta(seconds=seconds), INTERVAL)
