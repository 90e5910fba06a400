"""Parts of a task's figures on the test rows, shared by the task types."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.base import ReportModel
from app.spec.tasks import MetricName, TaskType

Better = Literal["higher", "lower"]


class MetricValue(ReportModel):
    """The metric that the verdict compares."""

    name: MetricName = Field(description="the metric")
    better: Better = Field(description="which values are better")
    value: float | None = Field(description="on the test rows; null where `undefined.metric` says why")


class ClassFigures(ReportModel):
    """One class, or one label of a multilabel task."""

    name: str = Field(alias="class", description="the class's name")
    precision: float | None = Field(description="share of its predictions that are right; null: never predicted")
    recall: float | None = Field(description="share of its rows that are found; null: no row has it")
    f1: float | None = Field(description="harmonic mean of both; null: neither predicted nor present")
    support: int = Field(description="test rows that have it")


class Confusion(ReportModel):
    """True classes against predicted ones."""

    classes: list[str] = Field(description="in the order of the rows and columns")
    rows: Literal["true"] = Field(description="a row is a true class")
    columns: Literal["predicted"] = Field(description="a column is a predicted class")
    counts: list[list[int]] = Field(description="test rows")


class LabelConfusion(ReportModel):
    """One table of no and yes for each label."""

    classes: list[str] = Field(description="the labels, in the order of the tables")
    rows: Literal["true no, yes"] = Field(description="a row is the truth")
    columns: Literal["predicted no, yes"] = Field(description="a column is the prediction")
    counts: list[list[list[int]]] = Field(description="test rows whose label is known, for each label")


class CalibrationBin(ReportModel):
    """The predictions whose probability lies in (lower, upper]."""

    lower: float = Field(description="least probability, exclusive; the first bin includes 0")
    upper: float = Field(description="largest probability, inclusive")
    n: int = Field(description="predictions")
    confidence: float = Field(description="mean probability")
    accuracy: float = Field(description="share that is right")


class Calibration(ReportModel):
    """Expected calibration error (Guo et al. 2017)."""

    ece_10: float | None = Field(description="over 10 bins of equal width; null without a prediction")
    ece_15: float | None = Field(description="over 15 bins of equal width; null without a prediction")
    bins: list[CalibrationBin] = Field(description="those of the 10 that hold predictions")


Undefined = dict[Literal["metric", "figures", "r2"], str]


class TaskFigures(ReportModel):
    """What every task type says; a module's own class adds the rest."""

    type: TaskType = Field(description="the target's type")
    n: int = Field(description="test rows with a label")
    missing: int = Field(description="test rows without one")
    metric: MetricValue = Field(description="the verdict's metric")


class ClassificationFigures(TaskFigures):
    """Of a binary or multiclass task. What could not be computed is absent, and `undefined.figures` says why."""

    type: Literal["binary", "multiclass"] = Field(description="the target's type")
    accuracy: float | None = Field(None, description="share of rows that are right")
    balanced_accuracy: float | None = Field(None, description="mean recall of the classes that occur")
    log_loss: float | None = Field(None, description="mean −log of the probability of the true class, in nats")
    macro_f1: float | None = Field(None, description="mean F1 of the classes that occur or were predicted")
    per_class: list[ClassFigures] | None = Field(None, description="in the order of the outputs")
    confusion: Confusion | None = Field(None, description="true classes against predicted ones")
    calibration: Calibration | None = Field(None, description="of the predicted class's probability")
    undefined: Undefined = Field(description="why something has no value; empty where all have one")
