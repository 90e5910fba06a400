"""Any number of labels: sigmoid cross-entropy, mean over a row's known labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.objectives import logits as soft_targets
from worker.training.scores import classification
from worker.training.scores import linear as fitted
from worker.training.scores.measures import MICRO_F1, Array, nothing_to_measure
from worker.training.tasks.dense import activation, as_it_is, dense, sigmoid, sigmoid_cross_entropy

if TYPE_CHECKING:
    from worker.training.tasks.heads import Task

fit_scale, loss, answers, layers = as_it_is, sigmoid_cross_entropy, sigmoid, dense
divergence = soft_targets.binary_divergence

CONSTANT, LINEAR = "the most frequent set of labels", "logistic regression"
METRICS, RELATIVE = {"micro_f1": MICRO_F1}, None


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """0 and 1, and which of them are known: (n, labels) float32."""
    mask = ~np.isnan(values)
    return np.where(mask, values, 0.0).astype(np.float32), mask.astype(np.float32)


def constant(task: Task, values: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Among the rows whose labels are all known; where there is none, each label by its own majority."""
    whole = values[np.isfinite(values).all(axis=1)]
    if not len(whole):
        known = np.isfinite(values)
        return np.asarray(np.where(known, values, 0).sum(axis=0) > known.sum(axis=0) / 2, np.float64)
    sets, counts = np.unique(whole, axis=0, return_counts=True)
    return np.asarray(sets[counts.argmax()], np.float64)


def linear(task: Task, x: np.ndarray, values: np.ndarray) -> fitted.Linear:  # noqa: ARG001
    return fitted.sigmoid(x, values)


def output_layer(task: Task) -> Any:
    return activation(task, "sigmoid")


def metric(counts: Sequence[int] | None) -> str:  # noqa: ARG001
    return "micro_f1"


def aligned(predicted: Array, target: Array) -> tuple[Array, Array, np.ndarray] | None:
    """Each known label of a row counts."""
    target = target[:, None] if target.ndim == 1 else target
    labelled = np.asarray(np.isfinite(target).any(axis=1))
    return (predicted, target, labelled) if target.shape == predicted.shape else None


def statistics(metric: str, predicted: Array, target: Array) -> Array:  # noqa: ARG001
    """True positives, false positives and false negatives of each row."""
    claimed, true, labelled = predicted > 0.5, target == 1, np.isfinite(target)
    parts = (claimed & true, claimed & ~true & labelled, ~claimed & true)
    return np.stack([part.sum(axis=1) for part in parts], axis=1).astype(np.float64)


def undefined(metric: str, predicted: Array, target: Array) -> str | None:  # noqa: ARG001
    return nothing_to_measure(predicted, target)


def figures(probabilities: Array, target: Array, names: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of `MultilabelFigures` beyond those of every type."""
    labels = classification.names_of(names, probabilities.shape[1])
    labelled, claimed, true = np.isfinite(target), probabilities > 0.5, target == 1
    hits = (claimed & true).sum(axis=0)
    support, claims, rows = true.sum(axis=0), (claimed & labelled).sum(axis=0), labelled.sum(axis=0)
    right = claimed == true
    all_labelled = labelled.all(axis=1)
    return {
        "micro_f1": classification.f1(int(hits.sum()), int(support.sum()), int(claims.sum())),
        "macro_f1": classification.macro(hits, support, claims),
        "accuracy": float(right[labelled].mean()),
        "exact_match": float(right[all_labelled].all(axis=1).mean()) if all_labelled.any() else None,
        "log_loss": classification.log_loss(np.where(true, probabilities, 1 - probabilities)[labelled]),
        "per_class": classification.per_class(labels, hits, support, claims),
        "confusion": {
            "classes": labels,
            "rows": "true no, yes",
            "columns": "predicted no, yes",
            "counts": [
                [[int(rows[i] - support[i] - claims[i] + hits[i]), int(claims[i] - hits[i])],
                 [int(support[i] - hits[i]), int(hits[i])]]
                for i in range(len(labels))
            ],
        },
        "calibration": classification.calibrations(probabilities[labelled], true[labelled]),
    }, {}  # fmt: skip


def agreement(student: Array, teacher: Array) -> float | None:
    """Of labels."""
    return float(np.mean((student > 0.5) == (teacher > 0.5)))
