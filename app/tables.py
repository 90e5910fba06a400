"""The database: what is true.

Constraints here, and the triggers of the migrations, hold even when a program errs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.states import TERMINAL, JobState


def _quoted(values: Any) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


class Row(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        }
    )
    type_annotation_map = {
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
    }


class Job(Row):
    """What a client asked for. `attempt` only grows and fences every write.

    `failures` is what the retry budget counts.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    meta: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    parent: Mapped[str | None]  # the pipeline whose step it is
    # JSON, not JSONB, which sorts the keys of objects: the order of tasks is the client's, and the first one is stratified by.
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    resolved_spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    datasets: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))  # [{ref, id, sha256}]
    seed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    state: Mapped[str]
    stage: Mapped[str | None]
    reason: Mapped[str | None]
    wanted: Mapped[str | None]
    discard: Mapped[bool] = mapped_column(server_default=text("false"))
    priority: Mapped[int] = mapped_column(server_default=text("5"))
    device: Mapped[str] = mapped_column(server_default=text("'auto'"))
    backend: Mapped[str] = mapped_column(server_default=text("'auto'"))
    max_seconds: Mapped[int]
    max_attempts: Mapped[int]

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    worker_id: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    run_after: Mapped[datetime] = mapped_column(server_default=func.now())

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())

    progress: Mapped[dict[str, Any] | None]
    latest: Mapped[dict[str, Any] | None]
    best: Mapped[dict[str, Any] | None]
    environment: Mapped[dict[str, Any] | None]
    usage: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    model_id: Mapped[str | None]
    last_event: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    idempotency_key: Mapped[str | None]
    idempotency_hash: Mapped[str | None]  # sha256 of the body that came with the key

    __table_args__ = (
        CheckConstraint(f"state IN ({_quoted(JobState)})", name="jobs_state"),
        CheckConstraint("wanted IS NULL OR wanted IN ('cancel', 'pause')", name="jobs_wanted"),
        CheckConstraint("wanted IS NULL OR state = 'running'", name="jobs_wanted_while_running"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="jobs_lease_while_running"),
        CheckConstraint(
            f"(state IN ({_quoted(TERMINAL)})) = (finished_at IS NOT NULL)", name="jobs_finished_when_terminal"
        ),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="jobs_error_when_failed"),
        CheckConstraint("attempt >= 0 AND failures >= 0 AND failures <= attempt", name="jobs_counts"),
        CheckConstraint("(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name="jobs_idempotency"),
        Index(
            "jobs_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("jobs_runnable", text("priority DESC"), "queued_at", "id", postgresql_where=text("state = 'queued'")),
        Index("jobs_leases", "lease_until", postgresql_where=text("state = 'running'")),
        Index("jobs_tags", "tags", postgresql_using="gin"),
    )


class Attempt(Row):
    """One execution of a job, and why it ended."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    detail: Mapped[dict[str, Any] | None]
    resumed: Mapped[dict[str, Any] | None]  # {stage: step} from which it went on

    __table_args__ = (
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="attempts_ended"),
        Index("attempts_one_open", "job_id", unique=True, postgresql_where=text("ended_at IS NULL")),
    )


class Pipeline(Row):
    """Jobs that were submitted at once. It has an outcome once no step of it will become a job any more, and no job of it runs; its jobs
    may then be deleted."""

    __tablename__ = "pipelines"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    cancelled: Mapped[bool] = mapped_column(server_default=text("false"))
    outcome: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    idempotency_key: Mapped[str | None]
    idempotency_hash: Mapped[str | None]  # sha256 of the body that came with the key

    __table_args__ = (
        CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="pipelines_outcome"),
        CheckConstraint("(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name="pipelines_idempotency"),
        Index(
            "pipelines_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("pipelines_unfinished", "id", postgresql_where=text("finished_at IS NULL")),
    )


class Step(Row):
    """A job to be: `job_id` once it was submitted, `problem` where it was refused. The job may be gone by now."""

    __tablename__ = "pipeline_steps"

    pipeline_id: Mapped[str] = mapped_column(ForeignKey("pipelines.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)  # as a job's
    needs: Mapped[list[str]]
    job_id: Mapped[str | None] = mapped_column(unique=True)
    problem: Mapped[dict[str, Any] | None]

    __table_args__ = (
        UniqueConstraint("pipeline_id", "position"),
        CheckConstraint("job_id IS NULL OR problem IS NULL", name="pipeline_steps_once"),
    )


class Transition(Row):
    """A change of a job's state as the database saw it. A trigger writes these rows, and nothing else can."""

    __tablename__ = "transitions"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    from_state: Mapped[str | None]  # null where the job began
    to_state: Mapped[str]
    attempt: Mapped[int]


class Event(Row):
    """Something that happened to a job; `seq` counts from 1 without gaps, in the order of the commits."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempt: Mapped[int]
    type: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class Metric(Row):
    """A value at an optimizer step of its stage; null where it was not finite."""

    __tablename__ = "metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    value: Mapped[float | None]


class Artifact(Row):
    """A file of a job: its name, and the blob that holds it. A row means that the blob is there, with that hash."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Row):
    """A kept Keras model: a job's own (`role` model) or a stage's (source, teacher, control/0, …); or one that was sent as a file
    (`role` imported), which has no job."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int | None]
    role: Mapped[str]
    name: Mapped[str]
    version: Mapped[int]
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)  # in the order of the outputs
    sha256: Mapped[str] = mapped_column(index=True)
    rows_sha256: Mapped[str | None]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("job_id", "role"),
        UniqueConstraint("name", "version"),
        CheckConstraint("(job_id IS NULL) = (attempt IS NULL)", name="models_of_a_job"),
    )


class Edge(Row):
    """Where a model comes from.

    `model_id` was initialized from, distilled from, trained on, or is the control of `target`.
    """

    __tablename__ = "edges"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    relation: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True, index=True)


class Dataset(Row):
    """An upload: parsed once, kept in a form of our own. The same bytes are the same data set."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    format: Mapped[str]
    sha256: Mapped[str]  # of the bytes that were sent
    targets: Mapped[list[str]] = mapped_column(
        server_default=text("'{}'")
    )  # as asked for at the upload; other targets, another data set
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # all else that was asked for
    state: Mapped[str] = mapped_column(server_default=text("'ready'"))
    progress: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))  # while it is preparing: done, total
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))  # why it failed
    prepared_sha256: Mapped[str | None]
    raw_sha256: Mapped[str | None]  # the bytes that were sent, where they are kept
    bytes: Mapped[int] = mapped_column(BigInteger)
    schema: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # in the order of the columns
    intake: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("sha256", "format", "targets", "options"),
        CheckConstraint("state IN ('preparing', 'ready', 'failed')", name="datasets_state"),
        CheckConstraint(
            "state <> 'ready' OR (prepared_sha256 IS NOT NULL AND schema IS NOT NULL)", name="datasets_ready"
        ),
    )


class Traced(Row):
    """The trace of an architecture on inputs of one shape, as one version of Keras builds it. `key`: of both, as data."""

    __tablename__ = "traces"

    key: Mapped[str] = mapped_column(primary_key=True)
    keras: Mapped[str] = mapped_column(primary_key=True)  # "" where the API has none beside it and cannot tell
    trace: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class Worker(Row):
    """A worker process and when it was last heard of."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]  # cpu | gpu
    device_name: Mapped[str | None]
    backends: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))  # that its trainers can have
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    version: Mapped[str]
    job_id: Mapped[str | None]
    has_room: Mapped[bool] = mapped_column(server_default=text("true"))  # on its disk, for another job
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
