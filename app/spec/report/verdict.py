"""Whether the method helped: the decision, the interval that it rests on, and what both arms cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.spec.base import ReportModel
from app.spec.figures import Better
from app.spec.tasks import MetricName

Decision = Literal["helped", "no_effect", "hurt", "inconclusive", "not_measured"]
Reason = Literal["few_seeds", "few_test_rows", "run_failed", "overlap", "uncertain"]
Overlap = Literal["none", "unknown", "seen"]

Ends = Annotated[list[float | None], Field(min_length=2, max_length=2)]
"""[lower, upper] end of an interval; both null where it could not be computed."""


class Values(ReportModel):
    """One value for each seed."""

    mean: float | None = Field(description="of the seeds; null without a value")
    values: list[float | None] = Field(description="in the order of `seeds`; null: not finite")


class ControlValues(ReportModel):
    """The control's values, one for each seed."""

    arm: str = Field(description="what the control is, in words")
    mean: float | None = Field(description="of the seeds; null without a control")
    values: list[float | None] = Field(description="in the order of `seeds`; null: not finite")


class Variance(ReportModel):
    """The variance of the mean difference and its parts, in the metric's unit squared."""

    seeds: float | None = Field(description="of the mean over the seeds; null with fewer than two pairs")
    test: float | None = Field(
        description="of the mean over the test units, of a share raised by 1/n²; null where it could not be computed"
    )
    residual: float | None = Field(
        None,
        description="the part that both hold: what is random in each pair of seed and test unit; null with one pair",
    )
    total: float | None = Field(
        None, description="what the interval rests on: both, with the residual once or, where that is narrower, twice"
    )
    df: float | None = Field(
        description="degrees of freedom by Welch and Satterthwaite; null where the variance is 0 or unknown"
    )


class ArmCost(ReportModel):
    """What the runs of one arm cost on the target."""

    steps: int | list[int] = Field(description="optimizer steps of one run; a list where runs differ")
    learning_rate: float | list[float] = Field(description="of one run; a list where runs differ")
    best_epoch: list[int | None] = Field(description="of each run, from 1, by validation; null: not watched")
    device_seconds: float = Field(description="seconds of training, all runs together")


class ExtraCost(ReportModel):
    """What the method used and the control did not. What it did not use is absent; null: not known."""

    unlabelled_rows: int | None = Field(None, description="rows whose inputs alone were used")
    source_steps: int | None = Field(None, description="optimizer steps of the source")
    source_rows: int | None = Field(None, description="rows behind the source")
    teacher_steps: int | None = Field(None, description="optimizer steps of all teachers")
    teacher_rows: int | None = Field(None, description="rows behind all teachers")
    teacher_labels: int | None = Field(None, description="labels that the teachers learnt from")
    generation_steps: int | None = Field(None, description="optimizer steps of one arm's earlier generations")


class Budget(ReportModel):
    """What each arm cost; null: the arm has no run."""

    treated: ArmCost | None = Field(description="the runs with the method")
    control: ArmCost | None = Field(description="the runs without it")
    besides: ExtraCost = Field(description="what the method used and the control did not")


class _Judged(ReportModel):
    """What one decision rests on. Differences are oriented: positive is better."""

    decision: Decision = Field(description="no_effect: the interval lies within the margin")
    reason: Reason | None = Field(description="why it is inconclusive; else null")


class TaskVerdict(_Judged):
    """Whether the method helped in one task. Differences are oriented: positive is better."""

    metric: MetricName = Field(description="what is compared, on the test rows")
    better: Better = Field(description="which values of the metric are better")
    treated: Values = Field(description="the metric with the method")
    control: ControlValues = Field(description="the metric without it")
    delta: Values = Field(description="treated − control, oriented, in the metric's unit")
    ci95: Ends = Field(description="the 95 % interval of the mean difference, in the metric's unit")
    interval: Ends = Field(description="the interval at `alpha` that decides: 0.05 shared among the tasks")
    alpha: float = Field(description="the chance of error that `interval` allows")
    margin: float | None = Field(
        description="the smallest difference that matters, in the metric's unit; null without a control"
    )
    n_seeds: int = Field(description="complete pairs of runs")
    seeds: list[int] = Field(description="the run seed of each pair")
    n_test: int = Field(description="test units with a label")
    test_unit: Literal["row", "group"] = Field(description="what counts as one independent unit")
    variance: Variance = Field(description="what the interval is made of")
    budget: Budget = Field(description="what both arms cost")
    overlap: Overlap = Field(description="whether test rows were seen in training")
    notes: list[str] = Field(description="what a reader must know before believing the difference")
    sentence: str = Field(description="the verdict, to be read aloud")


class TaskShare(ReportModel):
    """One task's part in Δm."""

    metric: MetricName = Field(description="the metric that enters Δm: RMSE for regression")
    treated: float | None = Field(description="mean over the seeds; null: not finite")
    control: float | None = Field(description="mean over the seeds; null: not finite")
    percent: float | None = Field(
        description="the relative gain in per cent, oriented; null where the control's mean is 0"
    )


class DeltaMVerdict(_Judged):
    """Whether the method helped on all tasks together: Δm, in per cent, positive is better."""

    metric: Literal["delta_m"] = Field(description="the mean relative gain over the tasks")
    better: Literal["higher"] = Field(description="Δm is oriented")
    sign_rule: str = Field(description="the formula of Δm")
    delta: Values = Field(description="Δm of each seed, in per cent")
    tasks: dict[str, TaskShare] = Field(description="each task's part; empty without a complete pair")
    ci95: Ends = Field(description="the 95 % interval of the mean, in per cent")
    interval: Ends = Field(description="the interval that decides: `ci95`")
    alpha: float = Field(description="the chance of error that `interval` allows")
    margin: float = Field(description="the smallest Δm that matters, in per cent")
    n_seeds: int = Field(description="complete pairs of runs")
    seeds: list[int] = Field(description="the run seed of each pair")
    n_test: int = Field(description="test units of the task that has the fewest")
    variance: Variance = Field(description="what the interval is made of")
    overlap: Overlap = Field(description="whether test rows were seen in training")
    notes: list[str] = Field(description="what a reader must know before believing the difference")
    sentence: str = Field(description="the verdict, to be read aloud")


class Verdict(ReportModel):
    """Whether the method helped: the job's decision, each task's, and Δm where there are several tasks."""

    on: str = Field(description="what decides: a task, or delta_m")
    decision: Decision = Field(description="no_effect: the interval lies within the margin")
    reason: Reason | None = Field(description="why it is inconclusive; else null")
    sentence: str = Field(description="the verdict, to be read aloud")
    interval: Ends | None = Field(description="of `on`, at `alpha`; null where no run has a result")
    alpha: float | None = Field(
        description="the chance of error that `interval` allows; null where no run has a result"
    )
    margin: float | None = Field(
        description="the smallest difference that matters, in the unit of `on`; null without a control"
    )
    n_seeds: int | None = Field(description="complete pairs of runs; null where no run has a result")
    tasks: dict[str, TaskVerdict] = Field(description="by task; empty where no run has a result")
    delta_m: DeltaMVerdict | None = Field(description="all tasks together; null for a single task that decides itself")
    notes: list[str] = Field(description="what a reader must know before believing the verdict")
