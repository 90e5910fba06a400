"""Projecting conflicting gradients: each task's gradient loses what points against another's (Yu et al. 2020, algorithm 1).

g_i ← g_i − (g_i·g_j/‖g_j‖²)·g_j for each other task j with g_i·g_j < 0, in random order; the projected gradients are summed. Where
none conflict that is the sum of the gradients. Heads get their task's plain gradient.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from app.spec.base import SpecModel
from worker.training.weighting import GradientStatistics, Numbers, TaskWeighting


class Spec(SpecModel):
    name: Literal["pcgrad"] = "pcgrad"


EXAMPLE: dict[str, Any] = {"name": "pcgrad"}


class Weighting(TaskWeighting):
    """Projections are on the *original* g_j, so each is a sum of gradients, and the Gramian says which.

    The order is drawn from (seed, step).
    """

    level: ClassVar[Literal["loss", "gradient"]] = "gradient"

    def weigh(self, statistics: GradientStatistics) -> Numbers:
        gram, k = statistics.gram, len(statistics.gram)
        drawn = np.random.default_rng([statistics.seed, statistics.number, *b"pcgrad"])
        total = np.zeros(k)
        for i in range(k):
            made_of = np.zeros(k)
            made_of[i] = 1.0
            for j in drawn.permutation(k):
                product = made_of @ gram[:, j]
                if j != i and product < 0 and gram[j, j] > 0:
                    made_of[j] -= product / gram[j, j]
            total += made_of
        return total
