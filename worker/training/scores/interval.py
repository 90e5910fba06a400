"""The interval of a mean difference over seeds and test rows, which are crossed: every seed's models answer the same rows.

The variance of the mean has a part from the seeds and one from the rows, as in a two-way analysis of variance with random effects. What is
random in each pair of seed and row is in both parts and counts once. The formula of Welch and Satterthwaite gives the degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.training.scores.measures import Array, metric_of

ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """Δ ± t·√V. `lo`, `hi` and `df` are nan where one seed leaves V unknown; where V is 0, `df` is nan. `v_residual`: the part that both
    variances hold; `v`: V, with that part once or twice."""

    delta: float
    lo: float
    hi: float
    v_seed: float
    v_test: float
    v_residual: float
    v: float
    df: float
    alpha: float


def interval(
    differences: Sequence[float] | Array, v_test: float, n_units: int, alpha: float = ALPHA, v_residual: float = 0.0
) -> Interval:
    """The interval for the mean of oriented differences, one a seed.

    Args:
        v_test: the mean's variance from the test rows, averaged over the seeds.
        v_residual: its part from what is random in each pair of seed and row, see `residual`.
    """
    d = np.asarray(differences, dtype=np.float64)
    v_seed = float(d.var(ddof=1) / d.size) if d.size > 1 else math.nan
    delta = float(d.mean())
    lo, hi, v, df = (float(x) for x in bounds(delta, v_seed, v_test, v_residual, d.size, n_units, alpha))
    return Interval(delta, lo, hi, v_seed, float(v_test), float(v_residual), v, df, alpha)


def bounds(
    delta: Any, v_seed: Any, v_test: Any, v_residual: Any, seeds: int, n_units: int, alpha: float
) -> tuple[Array, Array, Array, Array]:
    """lo, hi, V and the degrees of freedom; works elementwise on arrays.

    The seeds' variance and the rows' both hold the residual. Counted once, V is smaller and so are its degrees of freedom: with three seeds
    the interval may then be the wider one. The narrower one is taken.
    """
    from scipy.special import stdtrit  # at the end of a job: with what it brings, a trainer is 30 MiB larger

    delta, v_seed, v_test, v_residual = (np.asarray(x, np.float64) for x in (delta, v_seed, v_test, v_residual))
    once = np.maximum(v_seed + v_test - np.maximum(v_residual, 0.0), np.maximum(v_seed, v_test))
    found = []
    for v in (v_seed + v_test, once):
        with np.errstate(invalid="ignore", divide="ignore"):
            df = v**2 / (v_seed**2 / (seeds - 1 or math.nan) + v_test**2 / (n_units - 1 or math.nan))
            found.append((np.where(v == 0, 0.0, stdtrit(df, 1 - alpha / 2) * np.sqrt(v)), v, df))
    narrower = found[1][0] < found[0][0]
    half, v, df = (np.where(narrower, second, first) for first, second in zip(*found, strict=True))
    return delta - half, delta + half, v, df


def residual(v_tests: Sequence[float] | Array, v_test: float) -> float:
    """The variance of the mean difference from what is random in each pair of seed and row; nan with one seed.

    Averaging over S seeds leaves 1/S of it in V_test, so the mean of `v_tests`, those of single seeds, exceeds V_test by S − 1 times it.
    """
    each = np.asarray(v_tests, dtype=np.float64)
    return float(each.mean() - v_test) / (each.size - 1) if each.size > 1 else math.nan


def least_variance(metric: str, n_units: int) -> float:
    """What a share's variance from its test rows is raised by: that of one test unit's worth, 1/n².

    Where no row told two arms apart the rows' variance would be 0, and `no_effect` certain after any 30 rows (Agresti and Min 2005 add to
    the counts of a paired table for the same reason).
    """
    return n_units**-2.0 if metric_of(metric).share else 0.0


def rows_variance(unit_differences: Sequence[float] | Array) -> float:
    """V_test of a metric that is a mean over rows: from the differences on each test unit, averaged over the seeds."""
    d = np.asarray(unit_differences, dtype=np.float64)
    return float(d.var(ddof=1) / d.size) if d.size > 1 else math.nan
