"""The lines between a trainer and its worker: one JSON object a line, `report` names its type.

Both sides import this and nothing else of each other. The trainer only ever reports; the worker alone decides what
becomes of it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class Exit(IntEnum):
    """How a trainer ends. Any other status is a crash."""

    DONE = 0
    FAILED = 10  # a Failed line was sent; trying again would not help
    RETRY = 11  # a Failed line was sent; another attempt may succeed
    STOPPED = 12  # asked to stop (SIGTERM), checkpoint saved


Step = Annotated[int, Field(ge=0, le=2**53)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
"""Of a metric, a role, a stage, a file: names are keys of the database, whose length has an end."""


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Ready(_Report):
    """A spare has imported what it needs and waits for a job on its standard input."""

    report: Literal["ready"] = "ready"
    pid: int
    keras: str | None = None
    backend: str | None = None
    device: str | None = None


class Started(_Report):
    """The job has been read; `environment` is what it runs on."""

    report: Literal["started"] = "started"
    environment: dict[str, str | None] = {}


class Stage(_Report):
    """The trainer turns to stage `index` (from 0) of `of`: source, teacher, target, control/0, treated/1, evaluate, …"""

    report: Literal["stage"] = "stage"
    name: Name
    index: int = 0
    of: int = 1


class Progress(_Report):
    """Where the stage and the whole job stand; sent at most once a second.

    `fraction` and `eta_seconds` are of the whole job.
    """

    report: Literal["progress"] = "progress"
    stage: Name
    epoch: int | None = None
    epochs: int | None = None
    step: Step
    steps: Step
    fraction: float = Field(ge=0, le=1)
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    latest: dict[str, float | None] = {}


class Metrics(_Report):
    """Values at an optimizer step of their stage; null: not finite.

    Names carry the stage: `source/loss`, plain `loss` for the target, `control/0/loss`.
    """

    report: Literal["metrics"] = "metrics"
    step: Step
    values: dict[Name, float | None]


class Resumed(_Report):
    """The stage goes on from `step` (0: from its start).

    Its records of earlier attempts beyond that step no longer count.
    """

    report: Literal["resumed"] = "resumed"
    stage: Name
    step: Step
    metric_prefix: str = Field(description="'' for the target, 'source/', 'control/0/', …")


class Checkpoint(_Report):
    """Saved, and durable."""

    report: Literal["checkpoint"] = "checkpoint"
    stage: Name
    step: Step
    path: str


class EdgeReport(_Report):
    relation: Literal["initialized_from", "distilled_from", "trained_on", "control_of"]
    target: str = Field(description="a role of this job (source, teacher, model), a model's id, or a data set")


class Kept(_Report):
    """A finished stage's model. Files lie in the output folder.

    A later attempt is given them and trains the stage no more.
    """

    report: Literal["kept"] = "kept"
    role: Name
    model: str
    manifest: str
    rows: str | None = None
    edges: list[EdgeReport] = []


class ArtifactReport(_Report):
    """A file in the output folder that belongs to the job."""

    report: Literal["artifact"] = "artifact"
    name: Name
    path: str


class Warned(_Report):
    report: Literal["warned"] = "warned"
    code: str
    message: str


class Result(_Report):
    """All files are written. `best` is the best validation value of the job's model."""

    report: Literal["result"] = "result"
    best: dict[str, Any] | None = None
    seed: int = 0
    usage: dict[str, float] = {}


class Failed(_Report):
    """Why it ends without a result; `code` is one of the closed list of failures."""

    report: Literal["failed"] = "failed"
    code: str
    message: str
    hint: str | None = None
    blame: Literal["user", "system"] = "system"
    param: str | None = None
    retryable: bool = False
    stage: str | None = None


Report = Annotated[
    Ready
    | Started
    | Stage
    | Progress
    | Metrics
    | Resumed
    | Checkpoint
    | Kept
    | ArtifactReport
    | Warned
    | Result
    | Failed,
    Field(discriminator="report"),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Report)


def encode(report: _Report) -> bytes:
    """One line, with its newline."""
    return report.model_dump_json().encode() + b"\n"


def decode(line: bytes | str) -> Any:
    """The report on a line.

    Raises:
        ValueError: it is none; the message says what a report looks like, and never repeats the line.
    """
    line = line.encode() if isinstance(line, str) else line
    if b"\\u0000" in line:
        raise ValueError("not a report: the database keeps no NUL")
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise ValueError(
            f"not a report: {error.error_count()} faults, first {error.errors(include_input=False)[0]['msg']}"
        ) from None
