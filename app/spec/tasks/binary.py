"""One of two classes: one output, the probability of the second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.spec.data import Column
from app.spec.figures import ClassificationFigures
from app.spec.tasks import Head, Output, SoftTargets, most_likely

OUTPUT: Output = "sigmoid"
METRICS = ("accuracy", "balanced_accuracy")
SOFT_TARGETS: SoftTargets = "softened"
Figures = ClassificationFigures


def accepts(column: Column) -> bool:
    return natural(column)


def natural(column: Column) -> bool:
    return column.type == "category" and len(column.classes or ()) == 2


def units(column: Column) -> int:  # noqa: ARG001
    return 1


def order(ours: Head, theirs: Head) -> list[int] | None:
    """The one output is the second class's: it must be the same."""
    return [0] if list(ours.classes or ()) == list(theirs.classes or ()) else None


def prediction(output: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
    return most_likely(dict(zip(classes, (1 - output[0], output[0]), strict=True)))


def meaning(classes: Sequence[str]) -> str:
    return f"probability of {classes[1] if classes else 'the second class'!r}"
