"""One of two classes: sigmoid cross-entropy on one logit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.objectives import logits as soft_targets
from worker.training.scores import classification
from worker.training.scores import linear as fitted
from worker.training.tasks.dense import activation, as_it_is, codes, dense, sigmoid, sigmoid_cross_entropy

if TYPE_CHECKING:
    from worker.training.tasks.heads import Task

fit_scale, loss, answers, layers = as_it_is, sigmoid_cross_entropy, sigmoid, dense
divergence = soft_targets.binary_divergence

CONSTANT, LINEAR = "the most frequent class", "logistic regression"
METRICS, RELATIVE = classification.METRICS, None
metric, statistics, undefined, figures = (
    classification.metric,
    classification.statistics,
    classification.undefined,
    classification.figures,
)


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """0 and 1: (n, 1) float32."""
    stored, mask = codes(values)
    return stored.astype(np.float32).reshape(-1, 1), mask


def constant(task: Task, values: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return np.array([np.mean(values)])


def linear(task: Task, x: np.ndarray, values: np.ndarray) -> fitted.Linear:  # noqa: ARG001
    return fitted.sigmoid(x, values[:, None])


def output_layer(task: Task) -> Any:
    return activation(task, "sigmoid")


def aligned(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """With a column for each of the two classes."""
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = np.hstack([1 - predicted, predicted])
    return classification.aligned(predicted, target)


def agreement(student: np.ndarray, teacher: np.ndarray) -> float | None:
    return float(np.mean((student > 0.5) == (teacher > 0.5)))
