"""Any number of labels: a probability of each, claimed from one half on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec.data import Column
from app.spec.figures import Calibration, ClassFigures, LabelConfusion, TaskFigures, Undefined
from app.spec.tasks import Output, SoftTargets, by_name

OUTPUT: Output = "sigmoid"
METRICS = ("micro_f1",)
SOFT_TARGETS: SoftTargets = "softened"
order = by_name


class MultilabelFigures(TaskFigures):
    """Of a multilabel task; a label is claimed above one half. What could not be computed is absent, and `undefined.figures` says why."""

    type: Literal["multilabel"] = Field(description="the target's type")
    micro_f1: float | None = Field(None, description="F1 over all labels together; null: none is present or claimed")
    macro_f1: float | None = Field(None, description="mean F1 of the labels that are present or claimed; null: none is")
    accuracy: float | None = Field(None, description="share of known labels that are right")
    exact_match: float | None = Field(
        None, description="share of rows whose labels are all right; null: no row has all known"
    )
    log_loss: float | None = Field(
        None, description="mean −log of the probability of each known label's truth, in nats"
    )
    per_class: list[ClassFigures] | None = Field(None, description="in the order of the outputs")
    confusion: LabelConfusion | None = Field(None, description="for each label")
    calibration: Calibration | None = Field(None, description="of each known label's probability")
    undefined: Undefined = Field(description="why something has no value; empty where all have one")


Figures = MultilabelFigures


def accepts(column: Column) -> bool:
    return natural(column)


def natural(column: Column) -> bool:
    return column.type == "labels"


def units(column: Column) -> int:
    return len(column.classes or ())


def prediction(output: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
    pairs = dict(zip(classes, output, strict=True))
    return {"labels": [name for name, share in pairs.items() if share >= 0.5], "probabilities": pairs}


def meaning(classes: Sequence[str]) -> str:
    return f"probabilities of {', '.join(classes[:12])}"
