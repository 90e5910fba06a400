"""Numbers over optimizer steps. (job, name, step) is unique.

Values computed again after a resume replace the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from app.tables import Metric

# Three arrays, not thousands of parameters: those take longer to compile than the rows to insert.
_RECORD = text("""
    INSERT INTO metrics (job_id, name, step, attempt, value)
    SELECT :job, name, step, :attempt, value
        FROM unnest(CAST(:names AS text[]), CAST(:steps AS bigint[]), CAST(:values AS double precision[]))
        AS row (name, step, value)
    ON CONFLICT (job_id, name, step) DO UPDATE SET value = excluded.value, attempt = excluded.attempt
        WHERE metrics.attempt <= excluded.attempt
""")

# Rows by their place in their series, so that no more of them leave the database than are answered. Of the even ones there is one wherever
# the whole part of place × (even - 1) / (total - 1) grows.
_THINNED = text("""
    WITH placed AS (
        SELECT step, name, value,
            row_number() OVER (PARTITION BY name ORDER BY step) - 1 AS place,
            count(*) OVER (PARTITION BY name) AS total,
            row_number() OVER (PARTITION BY name ORDER BY value, step) AS from_below,
            row_number() OVER (PARTITION BY name ORDER BY value DESC NULLS LAST, step) AS from_above
        FROM metrics WHERE job_id = :job AND (:all OR name = ANY(CAST(:names AS text[])))
    )
    SELECT step, name, value FROM placed
    WHERE total <= :most
        OR place = total - 1
        OR (:even > 1 AND (place = 0 OR place * (:even - 1) / (total - 1) > (place - 1) * (:even - 1) / (total - 1)))
        OR (:extremes AND value IS NOT NULL AND (from_below = 1 OR from_above = 1))
    ORDER BY step
""")

Rows = Sequence[tuple[int, dict[str, float | None]]]


def record(session: Session, job_id: str, attempt: int, rows: Rows) -> None:
    """Stores rows of (step, {name: value}). The caller holds the attempt's fence (`jobs.fence`).

    Not finite is stored as null.
    """
    flat = [(name, step, value) for step, named in rows for name, value in named.items()]
    if flat:
        names, steps, values = zip(*flat, strict=True)
        finite = [value if value is not None and math.isfinite(value) else None for value in values]
        given = {"job": job_id, "attempt": attempt, "names": list(names), "steps": list(steps), "values": finite}
        session.execute(_RECORD, given)


def rewind(session: Session, job_id: str, prefix: str, step: int) -> int:
    """Forgets a stage's metrics beyond `step`.

    `prefix` is "source/", "control/0/", …, or "" for the target. Returns the rows removed.
    """
    of_stage = Metric.name.startswith(prefix, autoescape=True) if prefix else ~Metric.name.contains("/")
    return int(session.execute(delete(Metric).where(Metric.job_id == job_id, of_stage, Metric.step > step)).rowcount)  # type: ignore[attr-defined]


def count(session: Session, job_id: str) -> int:
    """Rows of a job."""
    return session.execute(select(func.count()).select_from(Metric).where(Metric.job_id == job_id)).scalar_one()


def names(session: Session, job_id: str) -> list[str]:
    return list(
        session.scalars(
            select(Metric.name)
            .where(Metric.job_id == job_id)
            .group_by(Metric.name)
            .order_by(func.min(Metric.step), Metric.name)
        )
    )


def series(
    session: Session, job_id: str, wanted: Sequence[str] | None = None, max_points: int | None = None
) -> tuple[list[int], dict[str, list[float | None]]]:
    """One ascending axis of steps, and for each name a value or None at every step.

    With `max_points` each series is thinned by itself to so many values at most, so the axis may be longer: the first and the last, the
    lowest and the highest, and others evenly between. Below four, the extremes give way, and then the first.
    """
    if max_points is None:
        query = select(Metric.step, Metric.name, Metric.value).where(Metric.job_id == job_id).order_by(Metric.step)
        if wanted is not None:
            query = query.where(Metric.name.in_(wanted))
        rows = session.execute(query).all()
    else:
        extremes = max_points >= 4
        given = {"job": job_id, "most": max_points, "extremes": extremes, "even": max_points - 2 * extremes}
        rows = session.execute(_THINNED, {**given, "all": wanted is None, "names": list(wanted or ())}).all()
    steps = sorted({step for step, _, _ in rows})
    place = {step: index for index, step in enumerate(steps)}
    columns: dict[str, list[float | None]] = {}
    for step, name, value in rows:
        if name not in columns:  # `setdefault` would make a column for each value
            columns[name] = [None] * len(steps)
        columns[name][place[step]] = value
    return steps, columns
