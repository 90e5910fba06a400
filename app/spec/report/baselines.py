"""What needs no network, beside a job's models: a score means little without it."""

from __future__ import annotations

from pydantic import Field

from app.spec.base import ReportModel
from app.spec.figures import Better
from app.spec.tasks import MetricName


class Baseline(ReportModel):
    """Fitted on the training rows of the job's model alone."""

    what: str = Field(description="in words")
    value: float | None = Field(description="the metric on the test rows; null where `reason` says why")
    reason: str | None = Field(description="why there is no value; else null")
    train_rows: int = Field(description="rows that it was fitted on")
    test_rows: int = Field(description="rows that it was measured on: all test rows, or 20,000 evenly spaced ones")


class Baselines(ReportModel):
    """Of one task."""

    metric: MetricName = Field(description="the verdict's")
    better: Better = Field(description="which values are better")
    constant: Baseline = Field(description="the best answer that is the same for every row")
    linear: Baseline | None = Field(
        description="a linear model of words or columns, or counts of words or bytes; null: such inputs or tasks have none"
    )
    compressor: Baseline | None = Field(
        None,
        description="a compressor that has seen training texts, of a text's next byte",
    )
