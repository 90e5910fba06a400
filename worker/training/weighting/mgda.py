"""Multiple gradient descent: K times the shortest vector between the tasks' gradients (Désidéri 2012; Sener and Koltun 2018).

It points down for every task, equally steep for all that matter to it, and is 0 where no direction helps all. A task whose gradient is
exactly 0 is left out, for it cannot be harmed and would stop all others. Heads get their task's plain gradient.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from app.spec.base import SpecModel
from worker.training.weighting import GradientStatistics, Numbers, TaskWeighting
from worker.training.weighting._simplex import least


class Spec(SpecModel):
    name: Literal["mgda"] = "mgda"


EXAMPLE: dict[str, Any] = {"name": "mgda"}


class Weighting(TaskWeighting):
    """k·argmin ‖Σ γ·g‖ over γ ≥ 0 with sum 1, for the k tasks with a gradient: the weights of the shared part add up to k."""

    level: ClassVar[Literal["loss", "gradient"]] = "gradient"

    def weigh(self, statistics: GradientStatistics) -> Numbers:
        moving = np.flatnonzero(np.diag(statistics.gram) > 0)
        weights = np.zeros(len(statistics.gram))
        if len(moving):
            weights[moving] = len(moving) * least(statistics.gram[np.ix_(moving, moving)])
        return weights
