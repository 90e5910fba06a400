"""Measurements on the test rows, kept as the parts that they are computed from, so that they can be resampled.

Pure numpy. `worker.training.scores.evaluate` makes measures, `worker.training.scores.verdict` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from app.spec import tasks
from app.spec.registry import module

Array = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True)
class Metric:
    """How a value is computed from sums of per-row statistics, and how it is read.

    `of` maps sums of shape (..., p) to values of shape (...). `mean`: the value is the mean of the statistics' first
    column (the second is 1 for each row), so that its variance over rows needs no bootstrap. `share`: the value is at
    most 1, so that differences are told in points. `margin`: the smallest difference that matters, from a control's value; None: that
    of shares.
    """

    label: str
    of: Callable[[Array], Array]
    better: Literal["higher", "lower"] = "higher"
    mean: bool = False
    share: bool = True
    margin: Callable[[float], float] | None = None

    @property
    def sign(self) -> int:
        return 1 if self.better == "higher" else -1


def _ratio(sums: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _rmse(sums: Array) -> Array:
    return np.sqrt(_ratio(sums))


def _mean_recall(sums: Array) -> Array:
    """Balanced accuracy from (correct rows of each class, rows of each class); a class with no row does not count."""
    correct, rows = np.split(sums, 2, axis=-1)
    recall = np.divide(correct, rows, out=np.zeros_like(correct), where=rows > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(recall.sum(-1) / (rows > 0).sum(-1))


def _micro_f1(sums: Array) -> Array:
    """From (true positives, false positives, false negatives); 0 where no positive is there or claimed."""
    hits = 2 * sums[..., 0]
    total = hits + sums[..., 1] + sums[..., 2]
    return np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)


ACCURACY = Metric("accuracy", _ratio, mean=True)
BALANCED_ACCURACY = Metric("balanced accuracy", _mean_recall)
MICRO_F1 = Metric("micro-F1", _micro_f1)
R2 = Metric("R²", _ratio, mean=True)
RMSE = Metric("RMSE", _rmse, better="lower", share=False)


@cache
def metric_of(name: str) -> Metric:
    """The metric that some task type measures by `name`. Raises LookupError where none does."""
    for kind in tasks.names():
        metrics: dict[str, Metric] = module("training.tasks", kind).METRICS
        if name in metrics:
            return metrics[name]
    raise LookupError(f"no task type measures {name!r}: known are {', '.join(tasks.metrics())}")


def nothing_to_measure(predicted: Array, target: Array) -> str | None:
    """Why no metric at all has a value."""
    if not len(target):
        return "no row has a label"
    return None if np.isfinite(predicted).all() else "predictions are not finite"


@dataclass(frozen=True, eq=False)
class Measure:
    """One metric of one model on one task's labelled test rows, kept as the parts that it is computed from.

    `statistics` is (n, p), additive over rows; `units` is (n,) and names the test unit of each row: its index in the
    data set, or its group's number under `split.by: group`. Measures on one `dataset` are resampled together.
    `undefined` says why there is no value.
    """

    metric: str
    statistics: Array
    units: NDArray[np.int64]
    dataset: str = ""
    undefined: str | None = None

    @cached_property
    def value(self) -> float:
        if self.undefined is not None:
            return math.nan
        return float(metric_of(self.metric).of(self.statistics.sum(axis=0)))

    @cached_property
    def n_units(self) -> int:
        return len(np.unique(self.units))


def resample(measures: Sequence[Measure], seed: int, resamples: int = RESAMPLES) -> Array:
    """Each measure's value on the same bootstrap resamples of test units: (len(measures), resamples).

    On each data set units are drawn with replacement from all units that any measure has; every measure on the data
    set uses the same resamples.
    """
    values = np.empty((len(measures), resamples))
    for dataset in sorted({measure.dataset for measure in measures}):
        members = [i for i, measure in enumerate(measures) if measure.dataset == dataset]
        pool = np.unique(np.concatenate([measures[i].units for i in members]))
        sums = [_by_unit(measures[i], pool) for i in members]
        edges = np.cumsum([0, *(of_units.shape[1] for of_units in sums)])
        side_by_side = np.hstack(sums)
        rng = np.random.default_rng([seed, crc32(dataset.encode())])
        for start, counts in _draws(rng, len(pool), resamples, max(len(pool), side_by_side.shape[1])):
            drawn = counts @ side_by_side
            for i, first, last in zip(members, edges, edges[1:], strict=False):
                values[i, start : start + len(counts)] = metric_of(measures[i].metric).of(drawn[:, first:last])
    return values


def _by_unit(measure: Measure, pool: NDArray[np.int64]) -> Array:
    """Sums of the statistics over each unit of `pool`: (len(pool), p)."""
    summed = np.zeros((len(pool), measure.statistics.shape[1]))
    np.add.at(summed, np.searchsorted(pool, measure.units), measure.statistics)
    return summed


def _draws(rng: np.random.Generator, units: int, resamples: int, widest: int) -> Iterable[tuple[int, Array]]:
    """How often each unit is drawn, (rows, units) at a time: so many rows that `widest` numbers for each take about 32
    MB."""
    rows = max(1, min(resamples, 4_000_000 // max(widest, 1)))
    for start in range(0, resamples, rows):
        drawn = [
            np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(min(rows, resamples - start))
        ]
        yield start, np.asarray(drawn, dtype=np.float64)
