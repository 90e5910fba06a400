"""Scores of a model on rows that it was not trained on: the report's figures, and the measures that a verdict compares.

Targets come as a data set stores them: class codes (n,) with −1 missing, numbers (n,) or (n, d) with NaN missing,
labels (n, L) of 0 and 1 with NaN missing. Predictions come as an exported model gives them: probabilities (n, C) of a
multiclass head, (n,) or (n, 1) of a binary head's second class, (n, L) of a multilabel head; numbers in the user's
units of a regression head. A label is claimed above one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.spec.registry import module
from worker.training.scores.measures import Array, Measure, Metric


class Scoring(Protocol):
    """How a task type is scored: part of the face of its module in `worker.training.tasks`.

    METRICS: by name. RELATIVE: the one of these with which a task enters Δm, where it is not the verdict's.
    """

    METRICS: Mapping[str, Metric]
    RELATIVE: str | None

    def metric(self, counts: Sequence[int] | None) -> str:
        """The verdict's metric. counts: rows of each class in the whole data set, where they are known."""

    def aligned(self, predicted: Array, target: Array) -> tuple[Array, Array, NDArray[np.bool_]] | None:
        """(predictions, targets, which rows have a label) of predictions (n, outputs); None where shapes do not fit."""

    def statistics(self, metric: str, predicted: Array, target: Array) -> Array:
        """Per-row parts of a metric, (n, p), in the order that its `of` expects; of labelled rows."""

    def undefined(self, metric: str, predicted: Array, target: Array) -> str | None:
        """Why a metric has no value on these rows."""

    def figures(
        self, predicted: Array, target: Array, names: Sequence[str] | None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The report's figures of labelled rows, at least one, JSON types only; and why single ones are null."""

    def agreement(self, student: Array, teacher: Array) -> float | None:
        """As the function `agreement`; (n, outputs) each, with at least one row."""


def scoring(task_type: str) -> Scoring:
    """How a task type is scored. Raises NotInstalled."""
    return cast("Scoring", module("training.tasks", task_type))


def metric_for(task_type: str, counts: Sequence[int] | None = None) -> str:
    """The verdict's metric of a task. Decided once in a job, so that every arm, seed and validation uses the same.

    Args:
        counts: rows of each class in the whole data set; unknown or none: plain accuracy.
    """
    return scoring(task_type).metric(counts)


def measure(
    task_type: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    metric: str,
    units: ArrayLike | None = None,
    dataset: str = "",
) -> Measure:
    """One metric on the labelled rows, kept in the parts from which the verdict resamples it.

    Args:
        metric: from `metric_for`; "rmse" where a regression enters Δm.
        units: (n,) the test unit of each row: its index in the data set, or its group's number; None: each row is one.

    Raises:
        ValueError: predictions do not fit the targets, or the metric the task.
    """
    predicted, target, labelled = _aligned(task_type, predictions, targets)
    unit = np.arange(len(labelled)) if units is None else np.asarray(units, dtype=np.int64)
    if unit.shape != labelled.shape:
        raise ValueError(f"units: expected one for each of {len(labelled)} rows, received shape {unit.shape}")
    predicted, target, unit = (_where(labelled, values) for values in (predicted, target, unit))
    kind = scoring(task_type)
    if metric not in kind.METRICS:
        raise ValueError(f"{metric!r} is no metric of a {task_type} task: metric_for gives {metric_for(task_type)!r}")
    made = Measure(metric, kind.statistics(metric, predicted, target), unit, dataset)
    why = kind.undefined(metric, predicted, target)
    return replace(made, undefined=why) if why else made


def evaluate(
    task_type: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    metric: str,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A task's figures for the report, JSON types only. A figure without a value is null, and `undefined` says why.

    Args:
        metric: the verdict's, from `metric_for`; its value is repeated under `metric`.
        classes: names in the order of the outputs (binary: negative, positive); None: their numbers.
    """
    kind = scoring(task_type)
    predicted, target, labelled = _aligned(task_type, predictions, targets)
    measured = measure(task_type, predictions, targets, metric=metric)
    predicted, target = _where(labelled, predicted), _where(labelled, target)
    undefined: dict[str, str] = {}
    summary: dict[str, Any] = {
        "type": task_type,
        "n": int(labelled.sum()),
        "missing": int((~labelled).sum()),
        "metric": {"name": metric, "better": kind.METRICS[metric].better, "value": _number(measured.value)},
    }
    if measured.undefined:
        undefined["metric"] = measured.undefined
    figures: dict[str, Any] = {}
    if not len(target):
        undefined["figures"] = "no row has a label"
    elif not np.isfinite(predicted).all():
        undefined["figures"] = "predictions are not finite"
    else:
        figures, why = kind.figures(predicted, target, classes)
        undefined |= why
    return {**summary, **figures, "undefined": undefined}


def agreement(task_type: str, student: ArrayLike, teacher: ArrayLike) -> float | None:
    """The share of test rows (multilabel: of labels) on which both predict the same class; null for regression.

    Args:
        student, teacher: probabilities of one shape: (n, C), or (n,) or (n, 1) of a binary head's positive class; of a head on a map
            (n, places, C).
    """
    of_student, of_teacher = (np.asarray(x, dtype=np.float64) for x in (student, teacher))
    if not len(of_student):
        return None
    return scoring(task_type).agreement(
        *(each[:, None] if each.ndim == 1 else each for each in (of_student, of_teacher))
    )


def _aligned(task_type: str, predictions: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Predictions (n, outputs) with both classes of a binary head, targets (n,) or (n, d), which rows have a label."""
    predicted, target = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if predicted.ndim == 1:
        predicted = predicted[:, None]
    aligned = scoring(task_type).aligned(predicted, target)
    if aligned is None or len(aligned[0]) != len(aligned[1]):
        raise ValueError(
            f"{task_type}: predictions of shape {np.shape(predictions)} do not fit targets of shape {np.shape(targets)}"
            " or a class code is beyond the last output"
        )
    return aligned


def _where(labelled: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
    """The labelled rows of `values`; where all are, no copy, which of millions of predictions would be as large again."""
    return values if labelled.all() else values[labelled]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
