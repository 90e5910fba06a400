"""Numbers: squared error of standardised ones, mean over a row's known numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.objectives.logits import squared_error
from worker.training.scores import linear as fitted
from worker.training.scores.measures import R2, RMSE, Array, nothing_to_measure
from worker.training.tasks import heads
from worker.training.tasks.dense import dense, mean_over_outputs

if TYPE_CHECKING:
    from worker.training.tasks.heads import Task

layers = dense

CONSTANT, LINEAR = "the mean", "ridge regression"
METRICS, RELATIVE = {"r2": R2, "rmse": RMSE}, "rmse"


def fit_scale(task: Task, values: np.ndarray) -> Task:
    """With mean and standard deviation of each number; a constant one is only shifted."""
    if not task.standardize:
        return task
    flat = values.astype(np.float64).reshape(len(values), -1)
    mean, std = np.nanmean(flat, axis=0), np.nanstd(flat, axis=0)
    std = np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, 1.0)
    return replace(task, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised numbers, and which of them are known: (n, units) float32."""
    flat = values.astype(np.float64).reshape(len(values), -1)
    mask = ~np.isnan(flat)
    flat = np.where(mask, flat, 0.0 if task.mean is None else np.array(task.mean))
    return heads.standardised(task, flat).astype(np.float32), mask.astype(np.float32)


def loss(target: Any, mask: Any, logits: Any) -> tuple[Any, Any]:
    from keras import ops

    return mean_over_outputs(ops.square(logits - target), mask)


def answers(task: Task, logits: np.ndarray) -> np.ndarray:
    return heads.in_units(task, logits)


def constant(task: Task, values: np.ndarray) -> np.ndarray:  # noqa: ARG001
    flat = values.reshape(len(values), -1).astype(np.float64)
    known = np.isfinite(flat)
    return np.asarray(np.where(known, flat, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def linear(task: Task, x: np.ndarray, values: np.ndarray) -> fitted.Linear | None:  # noqa: ARG001
    """Of the rows whose numbers are all known."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    whole = np.isfinite(flat).all(axis=1)
    return fitted.ridge(x[whole], flat[whole]) if whole.any() else None


def output_layer(task: Task) -> Any:
    """Back to the user's units."""
    import keras

    std, mean = (1.0, 0.0) if task.mean is None or task.std is None else (list(task.std), list(task.mean))
    return keras.layers.Rescaling(std, mean, name=task.name, dtype="float32")


def divergence(student: Any, teachers: Sequence[Any], weights: Sequence[float], temperature: float | None) -> Any:  # noqa: ARG001
    return squared_error(student, teachers, weights)


def metric(counts: Sequence[int] | None) -> str:  # noqa: ARG001
    return "r2"


def aligned(predicted: Array, target: Array) -> tuple[Array, Array, np.ndarray] | None:
    """A row needs all of its numbers."""
    target = target[:, None] if target.ndim == 1 else target
    labelled = np.asarray(np.isfinite(target).all(axis=1))
    return (predicted, target, labelled) if target.shape == predicted.shape else None


def statistics(metric: str, predicted: Array, target: Array) -> Array:
    """Squared errors, for R² in variances of the target; and 1 for each row."""
    ones = np.ones(len(target))
    if metric == "rmse":
        return np.stack([((predicted - target) ** 2).mean(axis=1), ones], axis=1)
    # R² as a mean over rows: the variance is that of these test rows, the same for every arm and seed.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([(1 - (predicted - target) ** 2 / _variance(target)).mean(axis=1), ones], axis=1)


def undefined(metric: str, predicted: Array, target: Array) -> str | None:
    nothing = nothing_to_measure(predicted, target)
    return NO_SPREAD if nothing is None and metric == "r2" and (_variance(target) == 0).any() else nothing


def figures(predicted: Array, target: Array, names: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:  # noqa: ARG001
    """The fields of `RegressionFigures` beyond those of every type, and why R² has no value."""
    error = predicted - target
    variance = _variance(target)
    constant = bool((variance == 0).any())
    return {
        "r2": None if constant else float((1 - (error**2).mean(axis=0) / variance).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(np.abs(error).mean()),
        "mean_error": float(error.mean()),
        "target_mean": float(target.mean()),
        "target_std": float(np.sqrt(variance.mean())),
    }, {"r2": NO_SPREAD} if constant else {}


def agreement(student: Array, teacher: Array) -> float | None:  # noqa: ARG001
    """Numbers do not agree or differ."""
    return None


def _variance(target: Array) -> Array:
    return np.asarray(target.var(axis=0)) if len(target) else np.full(target.shape[1], np.nan)


NO_SPREAD = "the targets do not vary on these rows"
