"""GradNorm: weights that bring the tasks' gradients to like lengths, longer for those that lag (Chen et al. 2018, algorithm 1).

G_i = w_i·‖∇L_i‖ on the last shared layer goes to mean(G)·r_i^α, where r_i = (L_i/L_i(0)) / mean over tasks, by Adam on
Σ |G_i − target_i| with the targets held constant. After each step the weights add up to K. A step uses the weights that stood before it;
they multiply the heads' gradients as well. α = 0 asks for equal lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from app.spec.base import SpecModel
from worker.training.weighting import GradientStatistics, Numbers, TaskWeighting, numbers
from worker.training.weighting._adam import Adam

SMALLEST_LOSS = 1e-8
SMALLEST_WEIGHT = 1e-4


class Spec(SpecModel):
    name: Literal["gradnorm"] = "gradnorm"
    alpha: float = Field(1.5, ge=0, le=10, description="how strongly a task that lags is pulled")
    w_lr: float = Field(0.025, gt=0, le=1, description="learning rate of the tasks' weights")


EXAMPLE: dict[str, Any] = {"name": "gradnorm", "alpha": 1.5}


class Weighting(TaskWeighting):
    """`w` from 1, `first` each task's loss before any step: both (K,)."""

    level: ClassVar[Literal["loss", "gradient"]] = "gradient"
    weighs_heads: ClassVar[bool] = True

    def build(self, learner: Any) -> None:
        self.w = self.state(learner, "w", 1.0)
        self.first = self.state(learner, "first_loss", 1.0)
        self.adam = Adam(self, learner, self.spec.w_lr)
        super().build(learner)

    def start(self, first_losses: Mapping[str, float]) -> None:
        missing = [task for task in self.tasks if not math.isfinite(first_losses.get(task, math.nan))]
        if missing:
            raise ValueError(
                f"gradnorm needs a first loss of every task on labelled rows; none for {', '.join(missing)}"
            )
        self.first.assign([max(first_losses[task], SMALLEST_LOSS) for task in self.tasks])

    def weigh(self, statistics: GradientStatistics) -> Numbers:
        w, here = numbers(self.w).astype(np.float64), statistics.places
        k, share = len(here), w[here].sum()
        used = np.asarray(w[here] * k / share)  # of k tasks the weights add up to k
        lengths = np.sqrt(np.maximum(np.diag(statistics.last), 0.0))
        if k > 1 and np.isfinite(lengths).all() and np.isfinite(statistics.losses).all():
            moved = np.maximum(
                used + self.adam.step(self.slopes(used, lengths, statistics.losses, here), here), SMALLEST_WEIGHT
            )
            w[here] = moved * share / moved.sum()
            self.w.assign(w.astype(np.float32))
        return used

    def slopes(self, w: Numbers, lengths: Numbers, losses: Numbers, here: Any) -> Numbers:
        """∂/∂w of Σ |G − target|: ±‖∇L‖."""
        return np.asarray(np.sign(w * lengths - self.targets(w, lengths, losses, here)) * lengths)

    def targets(self, w: Numbers, lengths: Numbers, losses: Numbers, here: Any) -> Numbers:
        progress = losses / numbers(self.first).astype(np.float64)[here]
        mean = progress.mean()
        rate = progress / mean if mean > 0 else np.ones_like(progress)
        return np.asarray((w * lengths).mean() * rate**self.spec.alpha)
