"""One of several classes: softmax cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.objectives import logits as soft_targets
from worker.training.scores import classification
from worker.training.scores import linear as fitted
from worker.training.tasks.dense import activation, as_it_is, codes, dense

if TYPE_CHECKING:
    from worker.training.tasks.heads import Task

fit_scale, layers, divergence = as_it_is, dense, soft_targets.divergence

CONSTANT, LINEAR = "the most frequent class", "logistic regression"
METRICS, RELATIVE = classification.METRICS, None
metric, aligned, statistics = classification.metric, classification.aligned, classification.statistics
undefined, figures = classification.undefined, classification.figures


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """Class numbers: (n,) int32."""
    stored, mask = codes(values)
    return stored.astype(np.int32), mask


def loss(target: Any, mask: Any, logits: Any) -> tuple[Any, Any]:
    """−log of the probability of each row's class."""
    from keras import ops

    rows = -ops.take_along_axis(ops.log_softmax(logits, axis=-1), ops.expand_dims(target, -1), axis=-1)[:, 0]
    return rows, mask


def answers(task: Task, logits: np.ndarray) -> np.ndarray:  # noqa: ARG001
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def constant(task: Task, values: np.ndarray) -> np.ndarray:
    return np.bincount(values, minlength=task.units) / len(values)


def linear(task: Task, x: np.ndarray, values: np.ndarray) -> fitted.Linear:
    return fitted.softmax(x, values, task.units)


def output_layer(task: Task) -> Any:
    return activation(task, "softmax")


def agreement(student: np.ndarray, teacher: np.ndarray) -> float | None:
    return float(np.mean(student.argmax(1) == teacher.argmax(1)))
