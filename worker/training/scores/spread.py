"""Whether one arm's values vary over the seeds many times as much as the other's. A run that collapses, or alone succeeds, hides in a mean,
and the interval of a difference that rests on it is not to be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from worker.training.scores.measures import metric_of
from worker.training.scores.sentence import scale, unit

FEWEST_SEEDS = 3
ERROR = 0.01
"""How often equal arms are said to differ, at most, where their values are normal."""

LEAST = 3.0
"""How many times as much is many, where seeds are so many that less would be seen."""


def uneven(verdict: Mapping[str, Any]) -> str | None:
    """A sentence where it is so; None where not, or with fewer than three pairs.

    The quotient of both variances is held against the F distribution. The larger deviation has to be more than the margin, so that it
    matters, and a share's smaller one counts as one test unit's worth at least: two arms that are all but perfect differ by a row here and
    there.

    Args:
        verdict: a task's, from its report: the values of both arms, metric, margin, seeds, n_test.
    """
    values = [verdict[arm]["values"] for arm in ("treated", "control")]
    seeds = len(values[0])
    if seeds < FEWEST_SEEDS or len(values[1]) != seeds or None in [*values[0], *values[1]]:
        return None
    deviations = [float(np.std(arm, ddof=1)) for arm in values]
    wide = int(deviations[1] > deviations[0])
    large, small = deviations[wide], deviations[1 - wide]
    step = 1 / verdict["n_test"] if metric_of(verdict["metric"]).share else 0.0
    if large <= (verdict["margin"] or 0.0) or large <= times(seeds) * max(small, step):
        return None
    by, of = scale(verdict), f" {unit(verdict)}".rstrip()
    arm, other = ("control", "treated") if wide else ("treated", "control")
    apart = np.abs(np.array(values[wide]) - np.median(values[wide]))
    furthest = int(apart.argmax())
    return (
        f"the {arm} runs vary many times as much as the {other}'s: a standard deviation of {by * large:.2g}{of} over {seeds} seeds against "
        f"{by * small:.2g}; seed {verdict['seeds'][furthest]} is {by * apart[furthest]:.2g}{of} from the middle of its arm. "
        "Look at each seed's value before believing the mean"
    )


def times(seeds: int) -> float:
    """How many times the other deviation one must be."""
    from scipy.special import fdtri  # at the end of a job: with what it brings, a trainer is 30 MiB larger

    return max(LEAST, math.sqrt(fdtri(seeds - 1, seeds - 1, 1 - ERROR / 2)))
