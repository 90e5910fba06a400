"""Homoscedastic uncertainty: Σ ½·e^(−s)·L + ½·s, s trained (Kendall, Gal and Cipolla 2018, equation 7; LibMTL: UW).

One form for every kind of loss, the paper's for regression. It is stationary at s = log L, so s starts at the log of
the first losses: from 0 it hardly moves in a short run, and the largest loss goes on ruling (measured: R² 10/65/82
from 0, 49/75/83 from log L, three regressions with targets ×1, ×10, ×100). The weights ½·e^(−s) do not add up to K,
and the total may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, only, value

SMALLEST_LOSS = 1e-8


class Spec(SpecModel):
    name: Literal["uncertainty"] = "uncertainty"


EXAMPLE: dict[str, Any] = {"name": "uncertainty"}


class Weighting(TaskWeighting):
    """`s` is (K,), trainable."""

    def build(self, learner: Any) -> None:
        self.s = self.state(learner, "log_variance", trainable=True)
        super().build(learner)

    def start(self, first_losses: Mapping[str, float]) -> None:
        missing = [task for task in self.tasks if not math.isfinite(first_losses.get(task, math.nan))]
        if missing:
            raise ValueError(
                f"uncertainty needs a first loss of every task on labelled rows; none for {', '.join(missing)}"
            )
        self.s.assign([math.log(max(first_losses[task], SMALLEST_LOSS)) for task in self.tasks])

    def parts(self, losses: Any, present: Any) -> Any:
        from keras import ops

        s = value(self.s, losses)
        return only(present, 0.5 * ops.exp(-s) * only(present, losses) + 0.5 * s)

    def in_use(self, losses: Any, present: Any) -> Any:
        from keras import ops

        return only(present, 0.5 * ops.exp(-value(self.s, losses)))
