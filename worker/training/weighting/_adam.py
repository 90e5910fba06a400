"""Adam (Kingma and Ba 2015, algorithm 1) for a weighting's own numbers, one a task, with a count of steps for each task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.training.weighting import Numbers, TaskWeighting, numbers

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Its moments are variables of `weighting`. A task that is left out of a step keeps its moments and its count."""

    def __init__(self, weighting: TaskWeighting, learner: Any, rate: float):
        self.rate = rate
        self._state = [weighting.state(learner, f"adam_{name}") for name in ("first", "second", "steps")]

    def step(self, gradient: Numbers, places: NDArray[np.int64]) -> Numbers:
        """The change of the numbers of the tasks at `places`, from their gradient."""
        first, second, steps = whole = [numbers(variable).astype(np.float64) for variable in self._state]
        first[places] = BETA_1 * first[places] + (1 - BETA_1) * gradient
        second[places] = BETA_2 * second[places] + (1 - BETA_2) * gradient**2
        steps[places] += 1
        for variable, now in zip(self._state, whole, strict=True):
            variable.assign(now.astype(np.float32))
        mean = first[places] / (1 - BETA_1 ** steps[places])
        variance = second[places] / (1 - BETA_2 ** steps[places])
        return np.asarray(-self.rate * mean / (np.sqrt(variance) + EPSILON))
