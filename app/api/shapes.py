"""The answers: what a client reads, apart from the tables, so that either may change alone."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session

from app import waiting
from app.api import next_commands
from app.api.problems import FaultShape
from app.datasets import DatasetEntry, State
from app.pipelines import PipelineState, StepState, View
from app.spec.data import Column, InputSchema, Schema
from app.spec.intake import Intake, UploadOptions
from app.spec.models import Manifest
from app.states import JobState
from app.tables import Artifact, Attempt, Edge, Event, Job, Model, Row, Worker

Item = TypeVar("Item")
Shape = TypeVar("Shape", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """A page of a list, newest first. The Link header has the address of the next one."""

    data: list[Item]
    next_cursor: str | None = Field(description="give it as ?cursor= to go on; null on the last page")


class JobError(BaseModel):
    """Why a job failed, in closed words."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    code: str
    message: str | None = None
    hint: str | None = None
    blame: str | None = None
    retryable: bool | None = None
    stage: str | None = None
    param: str | None = None


class DatasetUsed(BaseModel):
    id: str
    sha256: str


class JobShape(BaseModel):
    """A job: what was asked for, where it stands, what came of it."""

    id: str
    kind: str
    name: str | None
    state: JobState
    stage: str | None = Field(description="what the trainer does now")
    reason: str | None = Field(description="why the job is in this state")
    waits_for: str | None = Field(
        description="why a queued or paused job is not running: backing_off, no_worker, no_worker_for_device, "
        "no_worker_for_backend, no_room, worker_busy, or resume"
    )
    wanted: str | None = Field(description="what a client has asked for and the worker has yet to do")
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    queue_position: int | None = Field(description="how many jobs go before this one; null unless queued")
    progress: dict[str, Any] | None
    latest: dict[str, Any] | None
    best: dict[str, Any] | None
    model: str | None
    error: JobError | None
    spec: dict[str, Any]
    resolved_spec: dict[str, Any] = Field(description="the spec with every default in place")
    dataset: DatasetUsed | None
    datasets: list[dict[str, Any]]
    seed: int
    environment: dict[str, Any] | None
    usage: dict[str, Any] | None
    parent: str | None = Field(description="the pipeline whose step it is")
    tags: list[str]
    metadata: dict[str, Any]
    links: dict[str, str]


class StepProblem(BaseModel):
    """Why a step could not become a job when its turn came."""

    code: str
    detail: str
    errors: list[FaultShape]


class StepShape(BaseModel):
    """A job of a pipeline, or one to be."""

    state: StepState = Field(
        description="the job's; or `waiting` for other steps, `refused` as a job, `skipped` where the pipeline was stopped before, "
        "`deleted`: its job was"
    )
    needs: list[str] = Field(description="the steps that it refers to")
    job: str | None
    problem: StepProblem | None = Field(description="why it was refused")
    spec: dict[str, Any]


class PipelineShape(BaseModel):
    """Jobs that were submitted at once, where one may inherit from another."""

    id: str
    name: str | None
    state: PipelineState = Field(description="`running` as long as a step waits or a job of it has not ended")
    created_at: datetime
    finished_at: datetime | None
    steps: dict[str, StepShape] = Field(description="in the order in which they were sent")
    links: dict[str, str]


class Validated(BaseModel):
    """A spec without faults."""

    valid: bool
    resolved_spec: dict[str, Any]


class EventShape(BaseModel):
    id: int = Field(description="counts from 1 within the job, without gaps")
    type: str
    at: datetime
    attempt: int
    data: dict[str, Any]


class EventPage(BaseModel):
    data: list[EventShape]
    next_after: int | None = Field(description="give it as ?after= for what comes next; null when the job has ended")


class MetricsShape(BaseModel):
    """One ascending axis of optimizer steps; null where a series has no value."""

    step: list[int]
    series: dict[str, list[float | None]]


class AttemptShape(BaseModel):
    """One execution of a job, and why it ended."""

    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    detail: dict[str, Any] | None
    resumed: dict[str, Any] | None = Field(
        description="stage and step of the checkpoint that it went on from; 0: it began the stage anew"
    )


class Attempts(BaseModel):
    data: list[AttemptShape]


class ArtifactShape(BaseModel):
    name: str
    bytes: int
    sha256: str
    media_type: str
    created_at: datetime
    attempt: int
    href: str


class Artifacts(BaseModel):
    data: list[ArtifactShape]


class _Dataset(BaseModel):
    """A data set, apart from what it looks like."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    builtin: bool
    format: str | None
    description: str | None
    bytes: int | None
    sha256: str
    created_at: datetime | None
    state: State = Field(description="jobs may name it when it is `ready`")
    options: UploadOptions | None = Field(
        description="how it was to be read; other words for the same bytes are another data set"
    )


class DatasetProgress(BaseModel):
    done: int
    total: int = Field(description="files or bytes, whatever is counted; 0: not yet known")


class DatasetShape(_Dataset):
    data_schema: Schema | None = Field(alias="schema", description="null until it is `ready`")
    progress: DatasetProgress | None = Field(description="while it is `preparing`")
    errors: list[FaultShape] | None = Field(description="why it `failed`")
    intake: Intake | None = Field(description="what became of each part of the upload; null for what is built in")
    next: str | None = Field(description="a command that goes on from here; $S is this service's address")

    @classmethod
    def of(cls, entry: DatasetEntry) -> DatasetShape:
        progress = entry.progress and DatasetProgress(done=entry.progress[0], total=entry.progress[1])
        return cls(
            **{name: getattr(entry, name) for name in _Dataset.model_fields},
            schema=entry.schema,
            progress=progress,
            errors=None if entry.errors is None else [FaultShape(**fault) for fault in entry.errors],
            intake=entry.intake,
            next=next_commands.after_upload(entry),
        )


MOST_LISTED = 20
"""Columns, features and classes of a data set that a list names."""


class ColumnSummary(Column):
    """A column, with the first 20 of its classes and their counts."""

    classes_count: int | None = Field(description="how many classes it has in all")

    @classmethod
    def cut(cls, column: Column) -> ColumnSummary:
        listed = {name: value and value[:MOST_LISTED] for name, value in column if name in ("classes", "counts")}
        return cls(**{**dict(column), **listed, "classes_count": column.classes and len(column.classes)})


class SchemaSummary(BaseModel):
    """What a data set looks like, with the first 20 of its columns (its target among them) and of its features."""

    rows: int
    input: InputSchema
    features_count: int = Field(description="how many features it has in all")
    columns: dict[str, ColumnSummary]
    columns_count: int = Field(description="how many columns it has in all")
    target: str | None

    @classmethod
    def cut(cls, schema: Schema | None) -> SchemaSummary | None:
        if schema is None:
            return None
        listed = [
            feature.model_copy(update={"classes": feature.classes and feature.classes[:MOST_LISTED]})
            for feature in schema.input.features[:MOST_LISTED]
        ]
        names = sorted(schema.columns, key=lambda name: name != schema.target)[:MOST_LISTED]
        return cls(
            rows=schema.rows,
            input=schema.input.model_copy(update={"features": listed}),
            features_count=len(schema.input.features),
            columns={name: ColumnSummary.cut(column) for name, column in schema.columns.items() if name in names},
            columns_count=len(schema.columns),
            target=schema.target,
        )


class DatasetSummary(_Dataset):
    """A data set as lists show it: bounded, however many columns and classes it has."""

    data_schema: Annotated[SchemaSummary | None, BeforeValidator(SchemaSummary.cut)] = Field(alias="schema")

    @classmethod
    def of(cls, entry: DatasetEntry) -> DatasetSummary:
        return cls.model_validate(entry)


class Preview(BaseModel):
    """The first rows: `input` as predict takes it, and every column in words."""

    rows: list[dict[str, Any]]


class ModelShape(BaseModel):
    id: str
    name: str
    version: int
    ref: str
    job: str | None = Field(description="null: it was sent as a file")
    role: str
    bytes: int
    sha256: str
    created_at: datetime
    manifest: Manifest
    edges: list[dict[str, str]]
    links: dict[str, str]


class PredictedToken(BaseModel):
    """A token of a text; `start` and `end` count its characters, `end` is behind the last one."""

    text: str
    start: int
    end: int
    tag: str
    probability: float


class PredictedSpan(BaseModel):
    """Tokens that belong together; `start` and `end` as of tokens."""

    start: int
    end: int
    label: str
    text: str


class PredictedByte(BaseModel):
    """A byte that may follow a text, or a token, by its id; `text` where it can be printed."""

    byte: int | None = None
    token: int | None = None
    text: str | None = None
    probability: float


class PredictedBox(BaseModel):
    """A thing on a picture. `box`: left, top, right and bottom in pixels of the picture that was sent."""

    label: str
    probability: float
    box: list[float]


class Prediction(BaseModel):
    """A task's answer for one row: a label with probabilities, labels, a value in the units of the data, a vector,
    tokens with tags and the spans that these make, bytes that may come next, or boxes."""

    model_config = ConfigDict(extra="allow")  # a task type of a plugin may say more

    label: str | None = None
    labels: list[str] | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    value: float | list[float] | None = None
    vector: list[float] | None = None
    tokens: list[PredictedToken] | None = None
    spans: list[PredictedSpan] | None = None
    bits_per_byte: float | None = None
    next: list[PredictedByte] | None = None
    boxes: list[PredictedBox] | None = None


class Predictions(BaseModel):
    model: str
    predictions: list[dict[str, Prediction]] = Field(description="one entry a row: every task's answer")


class WorkerShape(BaseModel):
    id: str
    host: str
    pid: int
    device: str
    device_name: str | None
    backends: list[str] = Field(description="that its jobs may ask for")
    memory_bytes: int | None
    version: str
    job: str | None
    has_room: bool = Field(description="false while its disk is too full to take another job")
    started_at: datetime
    heartbeat_at: datetime


class Workers(BaseModel):
    data: list[WorkerShape]


def of_job(session: Session, job: Job) -> JobShape:
    """A job as a client sees it; counts the queue where it waits."""
    return _of(
        JobShape,
        job,
        waits_for=waiting.waits_for(session, job),
        queue_position=waiting.position(session, job),
        model=job.model_id,
        error=job.error or None,
        dataset=_main_dataset(job),
        metadata=job.meta,
        links=_links(job),
    )


def of_pipeline(view: View) -> PipelineShape:
    own = f"/v1/pipelines/{view.pipeline.id}"
    return _of(
        PipelineShape,
        view.pipeline,
        state=view.state,
        steps={step.name: _of(StepShape, step, state=state, job=step.job_id) for step, state in view.steps},
        links={"self": own, "cancel": f"{own}/cancel", "resume": f"{own}/resume"},
    )


def of_event(event: Event) -> EventShape:
    return _of(EventShape, event, id=event.seq)


def of_attempt(attempt: Attempt) -> AttemptShape:
    return _of(AttemptShape, attempt, worker=attempt.worker_id)


def of_artifact(artifact: Artifact) -> ArtifactShape:
    return _of(ArtifactShape, artifact, href=f"/v1/jobs/{artifact.job_id}/artifacts/{artifact.name}")


def of_model(model: Model, edges: list[Edge]) -> ModelShape:
    return _of(
        ModelShape,
        model,
        ref=f"model:{model.name}@{model.version}",
        job=model.job_id,
        edges=[{"relation": edge.relation, "target": edge.target} for edge in edges if edge.model_id == model.id],
        links={
            "self": f"/v1/models/{model.id}",
            **({} if model.job_id is None else {"job": f"/v1/jobs/{model.job_id}"}),
            "predict": f"/v1/models/{model.id}/predict",
            "file": f"/v1/models/{model.id}/file",
        },
    )


def of_worker(worker: Worker) -> WorkerShape:
    return _of(WorkerShape, worker, job=worker.job_id)


def _of(shape: type[Shape], row: Row, **other: Any) -> Shape:
    """The fields of `shape` as the row has them, but for the `other` ones."""
    return shape.model_validate({name: getattr(row, name) for name in shape.model_fields.keys() - other} | other)


def _main_dataset(job: Job) -> DatasetUsed | None:
    """The data set of the target, the student or the shared model; the first one of a job whose tasks have one each."""
    named = {entry["ref"]: entry for entry in job.datasets}
    entry = named.get(job.resolved_spec.get("dataset") or "") or next(iter(named.values()), None)
    return DatasetUsed(id=entry["id"], sha256=entry["sha256"]) if entry else None


def _links(job: Job) -> dict[str, str]:
    own = f"/v1/jobs/{job.id}"
    parts = (
        "cancel",
        "pause",
        "resume",
        "events",
        "metrics",
        "logs",
        "report",
        "attempts",
        "artifacts",
        "artifacts.zip",
    )
    links = {"self": own, **{part: f"{own}/{part}" for part in parts}}
    return links | {"model": f"/v1/models/{job.model_id}"} if job.model_id else links
