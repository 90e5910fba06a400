"""Vectors that are alike for rows of one identity: the supervised contrastive loss (Khosla et al., NeurIPS 2020).

The loss of a row i is that of equation 2: the mean over the rows p of its identity in the batch of −log(exp(zᵢ·zₚ/τ) / Σ exp(zᵢ·zₐ/τ)), the
sum over all other rows a that have a label, z the logits brought to length 1, τ 0.1. It needs nothing but the vectors themselves, where
proxies and margins need a weight for each class. A row that is alone of its identity in a batch has no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.scores import linear as fitted
from worker.training.scores import pairs
from worker.training.scores.measures import Array, nothing_to_measure
from worker.training.tasks.dense import as_it_is, codes, dense

if TYPE_CHECKING:
    from worker.training.tasks.heads import Task

fit_scale, layers = as_it_is, dense

CONSTANT, LINEAR = "one vector for all", "plain cosines"
METRICS, RELATIVE = {"roc_auc": pairs.ROC_AUC}, None
TEMPERATURE = 0.1
SMALLEST = 1e-12


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """Numbers of identities: (n,) int32."""
    stored, mask = codes(values)
    return stored.astype(np.int32), mask


def loss(target: Any, mask: Any, logits: Any) -> tuple[Any, Any]:
    from keras import ops

    unit = logits * ops.rsqrt(ops.maximum(ops.sum(ops.square(logits), axis=-1, keepdims=True), SMALLEST))
    number = ops.cumsum(ops.ones_like(mask))
    others = ops.cast(number[:, None] != number[None, :], "float32") * mask[:, None] * mask[None, :]
    same = ops.cast(target[:, None] == target[None, :], "float32") * others
    scores = ops.where(others > 0, ops.matmul(unit, ops.transpose(unit)) / TEMPERATURE, -1e9)
    log_shares = scores - ops.logsumexp(scores, axis=1, keepdims=True)
    count = ops.sum(same, axis=1)
    rows = -ops.sum(ops.where(same > 0, log_shares, 0.0), axis=1) / ops.maximum(count, 1.0)
    return rows, ops.cast(count > 0, "float32")


def answers(task: Task, logits: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return np.asarray(logits / np.maximum(np.linalg.norm(logits, axis=-1, keepdims=True), SMALLEST**0.5))


def output_layer(task: Task) -> Any:
    """To length 1."""
    import keras

    return keras.layers.UnitNormalization(axis=-1, name=task.name, dtype="float32")


def constant(task: Task, values: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return np.eye(1, task.units)[0]


def linear(task: Task, x: np.ndarray, values: np.ndarray) -> fitted.Linear:  # noqa: ARG001
    """The features themselves, from the mean of the training rows."""
    mean = x.mean(axis=0, dtype=np.float64)
    return lambda rows: np.asarray(rows - mean)


def metric(counts: Sequence[int] | None) -> str:  # noqa: ARG001
    return "roc_auc"


def aligned(predicted: Array, target: Array) -> tuple[Array, Array, np.ndarray] | None:
    """A vector a row, and the number of its identity."""
    return (predicted, target, np.asarray(target >= 0)) if target.ndim == 1 and predicted.ndim == 2 else None


def statistics(metric: str, predicted: Array, target: Array) -> Array:  # noqa: ARG001
    return pairs.parts(pairs.told(predicted, target), len(target))


def undefined(metric: str, predicted: Array, target: Array) -> str | None:  # noqa: ARG001
    nothing = nothing_to_measure(predicted, target)
    if nothing is not None:
        return nothing
    same, different = pairs.drawn(target)
    if not len(same):
        return ALONE
    return None if len(different) else "all rows are of one identity"


def figures(predicted: Array, target: Array, names: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:  # noqa: ARG001
    """The fields of `EmbeddingFigures` beyond those of every type."""
    told = pairs.told(predicted, target)
    there = len(told.same) and len(told.different)
    rate, threshold = pairs.equal_error(told) if there else (None, None)
    return {
        "roc_auc": float(pairs.ROC_AUC.of(pairs.parts(told, len(target)).sum(axis=0))) if there else None,
        "equal_error_rate": rate,
        "threshold": threshold,
        "identities": len(np.unique(target)),
        "same_pairs": len(told.same),
        "different_pairs": len(told.different),
    }, {}


def agreement(student: Array, teacher: Array) -> float | None:  # noqa: ARG001
    """Vectors of two models lie in two spaces."""
    return None


ALONE = "no two rows are of one identity"
