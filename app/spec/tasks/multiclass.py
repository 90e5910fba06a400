"""One of several classes: a probability of each. Two may be learnt so as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.spec.data import Column
from app.spec.figures import ClassificationFigures
from app.spec.tasks import Output, SoftTargets, by_name, most_likely

OUTPUT: Output = "softmax"
METRICS = ("accuracy", "balanced_accuracy")
SOFT_TARGETS: SoftTargets = "softened"
Figures = ClassificationFigures
order = by_name


def accepts(column: Column) -> bool:
    return column.type == "category"


def natural(column: Column) -> bool:
    return column.type == "category" and len(column.classes or ()) != 2


def units(column: Column) -> int:
    return len(column.classes or ())


def prediction(output: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
    return most_likely(dict(zip(classes, output, strict=True)))


def meaning(classes: Sequence[str]) -> str:
    return f"probabilities of {', '.join(classes[:12])}"
