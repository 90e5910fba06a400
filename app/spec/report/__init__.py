"""A job's report, `report.json`: the fields of every kind of job. A method's module adds its own in a subclass, its `REPORT`."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from app.spec.base import ReportModel
from app.spec.exports import ExportFormat
from app.spec.report.baselines import Baselines
from app.spec.report.figures import Figures
from app.spec.report.methods import Resized
from app.spec.report.near_duplicates import NearDuplicates
from app.spec.report.verdict import Decision, Reason, Verdict


class Latency(ReportModel):
    """Median times on one CPU, input to answer."""

    device: Literal["cpu"] = Field(description="where it was measured")
    batch: int = Field(description="rows of a batch")
    ms_per_row: float = Field(description="milliseconds for one row alone")
    ms_per_batch: float = Field(description="milliseconds for a batch")


class ModelSize(ReportModel):
    """The job's model."""

    parameters: int = Field(description="numbers in its layers")
    bytes: int = Field(description="size of model.keras")
    latency: Latency = Field(description="how fast it answers")
    architecture: dict[str, Any] = Field(description="its trunk, as in the catalog")


class FileScore(ReportModel):
    """What a quantized file costs: the same metric of the same test rows, by Keras and by the file."""

    metric: str = Field(description="the verdict's metric of the task")
    keras: float | None = Field(description="of model.keras; null: undefined on these rows")
    file: float | None = Field(description="of the file")


class Export(ReportModel):
    """A file of the model for other programs."""

    file: str = Field(description="name among the job's files")
    bytes: int = Field(description="its size")
    largest_difference: float = Field(
        description="from Keras's answers on training rows, relative to the largest answer where that is above 1"
    )
    ms_per_row: float | None = Field(
        None, description="milliseconds for one row on a CPU, median; absent in reports before 2026-11-27"
    )
    scores: dict[str, FileScore] | None = Field(None, description="of a quantized file, by task; else absent")
    rows: int | None = Field(None, description="test rows on which a quantized file was scored; else absent")


class Rows(ReportModel):
    """The parts of a data set."""

    train: int = Field(description="rows that may train")
    validation: int = Field(description="rows that are watched in training")
    test: int = Field(description="rows that nothing was trained on")


class ModelCost(ReportModel):
    """What one kept model cost."""

    steps: int = Field(description="optimizer steps")
    learning_rate: float = Field(description="of its last phase")
    device_seconds: float = Field(description="seconds of training")


class Report(ReportModel):
    """What was measured on the held-out rows, beside the control's, and whether the method helped."""

    kind: str = Field(description="the kind of job")
    decision: Decision = Field(description="the verdict's")
    reason: Reason | None = Field(description="the verdict's: why it is inconclusive; else null")
    sentence: str = Field(description="the verdict in one sentence, to be read aloud")
    verdict: Verdict = Field(description="whether the method helped, and what that rests on")
    tasks: dict[str, Figures] = Field(description="the model's figures on the test rows, by task")
    baselines: dict[str, Baselines] | None = Field(
        None, description="what needs no network on the same test rows, by task; absent in reports before 2026-11-27"
    )
    model: ModelSize = Field(description="the job's model")
    input: Resized | None = Field(description="how the model sees the pictures; null: as they are")
    export: dict[ExportFormat, Export] = Field(description="files besides model.keras, by format")
    rows: dict[str, Rows] = Field(description="by data set that the job is examined on")
    labels: dict[str, int] | None = Field(
        description="labels used, those of validation rows among them, by task; null: not recorded"
    )
    dropped_rows: dict[str, int] = Field(
        description="by data set: rows that trained nothing, since they meet validation or test rows"
    )
    near_duplicates: dict[str, NearDuplicates] | None = Field(
        None,
        description="test rows that nearly equal a training row, by data set of a kind that tells; absent in reports before 2026-11-27",
    )
    overlap: Literal["unknown", "none"] = Field(
        description="unknown: rows behind a model cannot be compared with the test rows"
    )
    models: dict[str, ModelCost] = Field(description="what each arm's model cost, by role")
    failed: dict[str, str] = Field(description="by arm without a model: why")

    def text(self) -> str:
        """As `report.json` has it."""
        data = self.model_dump(mode="json", exclude_unset=True)
        return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)
