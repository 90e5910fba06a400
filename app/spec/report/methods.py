"""What a report says of a method: what was inherited, how the tasks' gradients point, how near a student came to its teachers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.spec.base import ReportModel
from app.spec.report.verdict import Ends
from app.spec.tasks import MetricName

Shape = list[int]


class Inherited(ReportModel):
    """Which layers were copied from another model. Empty where none was to be."""

    copied: dict[str, str] | None = Field(None, description="by layer: the other model's layer")
    fresh: dict[str, str] | None = Field(None, description="by layer with numbers that was not copied: why")


class Resized(ReportModel):
    """How pictures are shown to layers that see another shape, (height, width, channels)."""

    fed: Shape = Field(description="the shape of the data's pictures")
    seen: Shape = Field(description="the shape that the layers see")
    channels: Literal["kept", "repeated", "averaged"] = Field(description="what becomes of the channels")
    block_means: list[int] = Field(
        description="[height, width] of the blocks whose means are taken before pixels are read; [1, 1]: none"
    )


class Opposed(ReportModel):
    """Two tasks' gradients on the shared layers."""

    tasks: Annotated[list[str], Field(min_length=2, max_length=2)] = Field(description="the two tasks")
    cosine: float = Field(description="mean of the samples, from −1 to 1")
    first: float = Field(description="of the first sample")
    last: float = Field(description="of the last sample")
    below_0: float = Field(description="share of the samples whose cosine is below 0")
    samples: int = Field(description="batches in which both tasks have a gradient")
    effect_on: dict[str, float | None] = Field(
        description="by task: what the other adds to its progress, as a share of it; null: it makes none itself"
    )


class Conflicts(ReportModel):
    """Who disturbs whom, sampled over training."""

    meaning: str = Field(description="how to read the numbers")
    sentence: str = Field(description="the most opposed pair in words")
    pairs: list[Opposed] = Field(description="the most opposed first; 100 at most")
    pairs_in_all: int = Field(description="pairs that were sampled")


class Teacher(ReportModel):
    """A model that taught."""

    model: str = Field(description="a role of this job, or another model's id")
    weight: float = Field(description="its share among the teachers, as asked for")
    parameters: int = Field(description="numbers in its layers")
    labels: dict[str, int] | None = Field(description="labels that it learnt from, by task; null: not recorded")
    input: Resized | None = Field(description="how it sees the pictures; null: as they are")


class TeacherValue(ReportModel):
    """The teachers together on the test rows."""

    metric: MetricName = Field(description="the verdict's")
    value: float | None = Field(description="null where it is not defined on these rows")


class BatchLatency(ReportModel):
    """Median times of one batch."""

    device: Literal["cpu"] = Field(description="where it was measured")
    batch: int = Field(description="rows")
    student: float = Field(description="milliseconds")
    teachers: float = Field(description="milliseconds, of all teachers one after the other")


class GapRecovered(ReportModel):
    """(student − alone)/(teacher − alone), a ratio of means over the seeds."""

    value: float | None = Field(description="null where `reason` says why")
    reason: str | None = Field(description="why it is not defined; else null")
    teacher: float | None = Field(None, description="the teachers' value; absent without a complete pair")
    teacher_ahead_ci95: Ends | None = Field(
        None, description="the 95 % interval of teacher − alone; absent without a complete pair"
    )


class Distilled(ReportModel):
    """How near the students came to their teachers in one task."""

    teachers: list[Teacher] = Field(description="in the order of the spec")
    teacher_head: str = Field(description="the first teacher's task that teaches this one")
    teacher_value: TeacherValue = Field(description="the teachers together")
    agreement: float | None = Field(
        description="share of test rows (multilabel: labels) on which student and teachers agree; null for regression"
    )
    params_ratio: float = Field(description="parameters, teachers / student")
    latency_ratio: float = Field(description="time of a batch, teachers / student")
    latency_ms_per_batch: BatchLatency = Field(description="what `latency_ratio` is made of")
    gap_recovered: GapRecovered = Field(description="how much of the teachers' lead the student kept")


class DistilledTasks(ReportModel):
    """The same for each task that has a teacher."""

    tasks: dict[str, Distilled] = Field(description="by task")
