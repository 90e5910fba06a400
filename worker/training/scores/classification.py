"""Metrics and figures of tasks with classes: one class among several, or single labels.

Predictions are probabilities, (n, C). Codes of classes are (n,), −1 where a row has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.training.scores.measures import ACCURACY, BALANCED_ACCURACY, Array, nothing_to_measure

RAREST = 0.10
BINS = (10, 15)

METRICS = {"accuracy": ACCURACY, "balanced_accuracy": BALANCED_ACCURACY}


def metric(counts: Sequence[int] | None) -> str:
    """Balanced accuracy where the rarest class has under 10 % of the rows, else accuracy. With more than five classes the limit is
    half an even share: 5 % for ten classes, each of which has 10 % where all are equal."""
    present = [count for count in counts or () if count > 0]
    if len(present) < 2:
        return "accuracy"
    limit = min(RAREST, 0.5 / len(present))
    return "balanced_accuracy" if min(present) / sum(present) < limit else "accuracy"


def aligned(predicted: Array, target: Array) -> tuple[Array, Array, NDArray[np.bool_]] | None:
    """A class code has a column of its own."""
    fits = target.ndim == 1 and predicted.ndim == 2 and not (len(target) and target.max() >= predicted.shape[1])
    return (predicted, target, np.asarray(target >= 0)) if fits else None


def statistics(metric: str, predicted: Array, target: Array) -> Array:
    """Whether a row is right, and 1; for balanced accuracy both for each class."""
    right = predicted.argmax(axis=1) == target
    if metric == "accuracy":
        return np.stack([right, np.ones(len(target))], axis=1).astype(np.float64)
    own = np.eye(predicted.shape[1])[target.astype(np.int64)]
    return np.hstack([own * right[:, None], own])


def undefined(metric: str, predicted: Array, target: Array) -> str | None:  # noqa: ARG001
    return nothing_to_measure(predicted, target)


def figures(
    probabilities: Array, target: Array, classes: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of `ClassificationFigures` beyond those of every type."""
    codes, names = target.astype(np.int64), names_of(classes, probabilities.shape[1])
    chosen = probabilities.argmax(axis=1)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (codes, chosen), 1)
    hits, support, claims = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    right = chosen == codes
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((hits[support > 0] / support[support > 0]).mean()),
        "log_loss": log_loss(probabilities[np.arange(len(codes)), codes]),
        "macro_f1": macro(hits, support, claims),
        "per_class": per_class(names, hits, support, claims),
        "confusion": {"classes": names, "rows": "true", "columns": "predicted", "counts": confusion.tolist()},
        "calibration": calibrations(probabilities.max(axis=1), right),
    }, {}


def calibration(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> dict[str, Any]:
    """Expected calibration error over equal-width bins (Guo et al. 2017, eq. 3) and the bins that hold rows.

    Args:
        confidence: (n,) probabilities; a bin is (lower, upper], the first one includes 0.
        correct: (n,) whether the prediction with that probability was right.
    """
    p, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    place = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=p, minlength=bins), np.bincount(place, weights=hit, minlength=bins)
    filled = [
        {
            "lower": i / bins,
            "upper": (i + 1) / bins,
            "n": int(counts[i]),
            "confidence": float(sums[0][i] / counts[i]),
            "accuracy": float(sums[1][i] / counts[i]),
        }
        for i in np.flatnonzero(counts)
    ]
    return {"ece": float(np.abs(sums[0] - sums[1]).sum() / len(p)) if len(p) else None, "bins": filled}


def per_class(names: list[str], hits: Any, support: Any, claims: Any) -> list[dict[str, Any]]:
    """Precision is null where a class was never predicted, recall where it never occurs."""
    return [
        {
            "class": name,
            "precision": float(hits[i] / claims[i]) if claims[i] else None,
            "recall": float(hits[i] / support[i]) if support[i] else None,
            "f1": f1(int(hits[i]), int(support[i]), int(claims[i])),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    ]


def f1(hits: int, support: int, claims: int) -> float | None:
    return 2 * hits / (support + claims) if support + claims else None


def macro(hits: Any, support: Any, claims: Any) -> float | None:
    """The mean F1 of the classes that occur or were predicted."""
    each = [f1(int(h), int(s), int(c)) for h, s, c in zip(hits, support, claims, strict=True)]
    defined = [value for value in each if value is not None]
    return float(np.mean(defined)) if defined else None


def log_loss(of_truth: Array) -> float:
    """Mean −log of the probability given to the truth, clipped as scikit-learn does."""
    return float(-np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1.0)).mean())


def calibrations(confidence: Array, correct: NDArray[np.bool_]) -> dict[str, Any]:
    fine = calibration(confidence, correct, BINS[1])
    coarse = calibration(confidence, correct, BINS[0])
    return {"ece_10": coarse["ece"], "ece_15": fine["ece"], "bins": coarse["bins"]}


def names_of(classes: Sequence[str] | None, outputs: int) -> list[str]:
    if classes is not None and len(classes) != outputs:
        raise ValueError(f"classes: expected {outputs} names, one an output, received {len(classes)}")
    return list(classes) if classes is not None else [str(i) for i in range(outputs)]
