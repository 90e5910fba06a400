"""What a model gets on rows that it was not trained on: the report's figures, and the measures that a verdict compares.

Targets come as the data part stores them: class codes (n,) with −1 missing, numbers (n,) or (n, d) with NaN missing,
labels (n, L) of 0 and 1 with NaN missing. Predictions come as an exported model gives them: probabilities (n, C) of a
multiclass head, (n,) or (n, 1) of a binary head's second class, (n, L) of a multilabel head; numbers in the user's
units of a regression head. A label is claimed above one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.training.scores.measures import METRICS, Measure

TaskType = Literal["binary", "multiclass", "multilabel", "regression"]
Array = NDArray[np.float64]

RAREST = 0.10
BINS = (10, 15)


def metric_for(task_type: TaskType, counts: Sequence[int] | None = None) -> str:
    """The verdict's metric of a task. Decide it once a job, so that every arm, seed and validation uses the same.

    Balanced accuracy where the rarest class has under 10 % of the rows. Of ten equal classes each has 10 %, so with
    more than five classes the limit is half an even share: 5 % for ten.

    Args:
        counts: rows of each class in the whole data set; unknown or none: plain accuracy.
    """
    if task_type == "regression":
        return "r2"
    if task_type == "multilabel":
        return "micro_f1"
    present = [count for count in counts or () if count > 0]
    if len(present) < 2:
        return "accuracy"
    limit = min(RAREST, 0.5 / len(present))
    return "balanced_accuracy" if min(present) / sum(present) < limit else "accuracy"


def measure(
    task_type: TaskType,
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    metric: str,
    units: ArrayLike | None = None,
    dataset: str = "",
) -> Measure:
    """One metric on the labelled rows, in the parts from which the verdict resamples it.

    Args:
        metric: from `metric_for`; "rmse" for what a regression enters Δm with.
        units: (n,) the test unit of each row: its index in the data set, or its group's number; None: each row is one.

    Raises:
        ValueError: predictions do not fit the targets, or the metric the task.
    """
    predicted, target, labelled = _aligned(task_type, predictions, targets)
    unit = np.arange(len(labelled)) if units is None else np.asarray(units, dtype=np.int64)
    if unit.shape != labelled.shape:
        raise ValueError(f"units: expected one for each of {len(labelled)} rows, received shape {unit.shape}")
    predicted, target, unit = predicted[labelled], target[labelled], unit[labelled]
    made = Measure(metric, _statistics(task_type, metric, predicted, target), unit, dataset)
    why = _why_undefined(task_type, metric, predicted, target)
    return replace(made, undefined=why) if why else made


def evaluate(
    task_type: TaskType,
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    metric: str,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A task's figures for the report, JSON types only. What has no value is null, and `undefined` says why.

    Args:
        metric: the verdict's, from `metric_for`; its value is repeated under `metric`.
        classes: names in the order of the outputs (binary: negative, positive); None: their numbers.
    """
    predicted, target, labelled = _aligned(task_type, predictions, targets)
    one = measure(task_type, predictions, targets, metric=metric)
    predicted, target = predicted[labelled], target[labelled]
    undefined: dict[str, str] = {}
    told: dict[str, Any] = {
        "type": task_type,
        "n": int(labelled.sum()),
        "missing": int((~labelled).sum()),
        "metric": {"name": metric, "better": METRICS[metric].better, "value": _number(one.value)},
    }
    if one.undefined:
        undefined["metric"] = one.undefined
    figures: dict[str, Any] = {}
    if not len(target):
        undefined["figures"] = "no row has a label"
    elif not np.isfinite(predicted).all():
        undefined["figures"] = "predictions are not finite"
    elif task_type == "regression":
        figures = _regression(predicted, target, undefined)
    elif task_type == "multilabel":
        figures = _multilabel(predicted, target, _names(classes, predicted.shape[1]))
    else:
        figures = _classification(predicted, target.astype(np.int64), _names(classes, predicted.shape[1]))
    return {**told, **figures, "undefined": undefined}


def calibration(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> dict[str, Any]:
    """Expected calibration error over equal-width bins (Guo et al. 2017, eq. 3) and the bins that hold rows.

    Args:
        confidence: (n,) probabilities; a bin is (lower, upper], the first one includes 0.
        correct: (n,) whether what had that probability was so.
    """
    p, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    place = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=p, minlength=bins), np.bincount(place, weights=hit, minlength=bins)
    told = [
        {
            "lower": i / bins,
            "upper": (i + 1) / bins,
            "n": int(counts[i]),
            "confidence": float(sums[0][i] / counts[i]),
            "accuracy": float(sums[1][i] / counts[i]),
        }
        for i in np.flatnonzero(counts)
    ]
    return {"ece": float(np.abs(sums[0] - sums[1]).sum() / len(p)) if len(p) else None, "bins": told}


def _aligned(task_type: TaskType, predictions: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Predictions (n, outputs) with both classes of a binary head, targets (n,) or (n, d), which rows have a label."""
    predicted, target = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if predicted.ndim == 1:
        predicted = predicted[:, None]
    if task_type == "binary" and predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = np.hstack([1 - predicted, predicted])
    if task_type in ("binary", "multiclass"):
        fits = target.ndim == 1 and predicted.ndim == 2 and not (len(target) and target.max() >= predicted.shape[1])
        labelled = np.asarray(target >= 0)
    else:
        target = target[:, None] if target.ndim == 1 else target
        fits = target.shape == predicted.shape
        # A regression row needs all of its numbers; of a labels row, each known label counts.
        known = np.isfinite(target)
        labelled = np.asarray(known.all(axis=1) if task_type == "regression" else known.any(axis=1))
    if not fits or len(predicted) != len(target):
        raise ValueError(
            f"{task_type}: predictions of shape {np.shape(predictions)} do not fit targets of shape {np.shape(targets)}"
            " or a class code is beyond the last output"
        )
    return predicted, target, labelled


def _statistics(task_type: TaskType, metric: str, predicted: Array, target: Array) -> Array:
    """Per-row parts of a metric, (n, p), in the order that its `of` expects."""
    ones = np.ones(len(target))
    match task_type, metric:
        case (("binary" | "multiclass"), "accuracy"):
            return np.stack([predicted.argmax(axis=1) == target, ones], axis=1).astype(np.float64)
        case (("binary" | "multiclass"), "balanced_accuracy"):
            own = np.eye(predicted.shape[1])[target.astype(np.int64)]
            return np.hstack([own * (predicted.argmax(axis=1) == target)[:, None], own])
        case "multilabel", "micro_f1":
            claimed, true, known = predicted > 0.5, target == 1, np.isfinite(target)
            parts = (claimed & true, claimed & ~true & known, ~claimed & true)
            return np.stack([part.sum(axis=1) for part in parts], axis=1).astype(np.float64)
        case "regression", "rmse":
            return np.stack([((predicted - target) ** 2).mean(axis=1), ones], axis=1)
        case "regression", "r2":
            # R² as a mean over rows: the variance is that of these test rows, the same for every arm and seed.
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.stack([(1 - (predicted - target) ** 2 / _variance(target)).mean(axis=1), ones], axis=1)
    raise ValueError(f"{metric!r} is no metric of a {task_type} task: metric_for gives {metric_for(task_type)!r}")


def _why_undefined(task_type: TaskType, metric: str, predicted: Array, target: Array) -> str | None:
    if not len(target):
        return "no row has a label"
    if not np.isfinite(predicted).all():
        return "predictions are not finite"
    if task_type == "regression" and metric == "r2" and (_variance(target) == 0).any():
        return "the targets do not vary on these rows"
    return None


def _variance(target: Array) -> Array:
    return np.asarray(target.var(axis=0)) if len(target) else np.full(target.shape[1], np.nan)


def _classification(probabilities: Array, codes: NDArray[np.int64], names: list[str]) -> dict[str, Any]:
    chosen = probabilities.argmax(axis=1)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (codes, chosen), 1)
    hits, support, claims = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    right = chosen == codes
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((hits[support > 0] / support[support > 0]).mean()),
        "log_loss": _log_loss(probabilities[np.arange(len(codes)), codes]),
        "macro_f1": _macro(hits, support, claims),
        "per_class": _per_class(names, hits, support, claims),
        "confusion": {"classes": names, "rows": "true", "columns": "predicted", "counts": confusion.tolist()},
        "calibration": _calibrations(probabilities.max(axis=1), right),
    }


def _multilabel(probabilities: Array, target: Array, names: list[str]) -> dict[str, Any]:
    known, claimed, true = np.isfinite(target), probabilities > 0.5, target == 1
    hits = (claimed & true).sum(axis=0)
    support, claims, rows = true.sum(axis=0), (claimed & known).sum(axis=0), known.sum(axis=0)
    right = claimed == true
    all_known = known.all(axis=1)
    return {
        "micro_f1": _f1(int(hits.sum()), int(support.sum()), int(claims.sum())),
        "macro_f1": _macro(hits, support, claims),
        "accuracy": float(right[known].mean()),
        "exact_match": float(right[all_known].all(axis=1).mean()) if all_known.any() else None,
        "log_loss": _log_loss(np.where(true, probabilities, 1 - probabilities)[known]),
        "per_class": _per_class(names, hits, support, claims),
        "confusion": {
            "classes": names,
            "rows": "true no, yes",
            "columns": "predicted no, yes",
            "counts": [
                [[int(rows[i] - support[i] - claims[i] + hits[i]), int(claims[i] - hits[i])],
                 [int(support[i] - hits[i]), int(hits[i])]]
                for i in range(len(names))
            ],
        },
        "calibration": _calibrations(probabilities[known], true[known]),
    }  # fmt: skip


def _regression(predicted: Array, target: Array, undefined: dict[str, str]) -> dict[str, Any]:
    error = predicted - target
    variance = _variance(target)
    constant = bool((variance == 0).any())
    if constant:
        undefined["r2"] = "the targets do not vary on these rows"
    return {
        "r2": None if constant else float((1 - (error**2).mean(axis=0) / variance).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(np.abs(error).mean()),
        "mean_error": float(error.mean()),
        "target_mean": float(target.mean()),
        "target_std": float(np.sqrt(variance.mean())),
    }


def _per_class(names: list[str], hits: Any, support: Any, claims: Any) -> list[dict[str, Any]]:
    """Precision is null where a class was never predicted, recall where it never occurs."""
    return [
        {
            "class": name,
            "precision": float(hits[i] / claims[i]) if claims[i] else None,
            "recall": float(hits[i] / support[i]) if support[i] else None,
            "f1": _f1(int(hits[i]), int(support[i]), int(claims[i])),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    ]


def _f1(hits: int, support: int, claims: int) -> float | None:
    return 2 * hits / (support + claims) if support + claims else None


def _macro(hits: Any, support: Any, claims: Any) -> float | None:
    """The mean F1 of the classes that occur or were predicted."""
    each = [_f1(int(h), int(s), int(c)) for h, s, c in zip(hits, support, claims, strict=True)]
    known = [value for value in each if value is not None]
    return float(np.mean(known)) if known else None


def _log_loss(of_truth: Array) -> float:
    """Mean −log of the probability given to the truth, clipped as scikit-learn does."""
    return float(-np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1.0)).mean())


def _calibrations(confidence: Array, correct: NDArray[np.bool_]) -> dict[str, Any]:
    fine = calibration(confidence, correct, BINS[1])
    coarse = calibration(confidence, correct, BINS[0])
    return {"ece_10": coarse["ece"], "ece_15": fine["ece"], "bins": coarse["bins"]}


def _names(classes: Sequence[str] | None, outputs: int) -> list[str]:
    if classes is not None and len(classes) != outputs:
        raise ValueError(f"classes: expected {outputs} names, one an output, received {len(classes)}")
    return list(classes) if classes is not None else [str(i) for i in range(outputs)]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
