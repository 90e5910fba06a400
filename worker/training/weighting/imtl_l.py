"""Impartial losses: Σ e^s·L − s, s trained from 0 (Liu et al. 2021, "Towards Impartial Multi-task Learning", equation 9).

Stationary at s = −log L, where every weighted loss e^s·L is 1: no task rules by its scale. The first step, from s = 0, is
that of `equal`. The weights e^s do not add up to K, and the total may be negative.
"""

from __future__ import annotations

from typing import Any, Literal

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, only, value


class Spec(SpecModel):
    name: Literal["imtl_l"] = "imtl_l"


EXAMPLE: dict[str, Any] = {"name": "imtl_l"}


class Weighting(TaskWeighting):
    """`s` is (K,), trained by the learner's optimizer."""

    def build(self, learner: Any) -> None:
        self.s = self.state(learner, "log_scale", trainable=True)
        super().build(learner)

    def parts(self, losses: Any, present: Any) -> Any:
        from keras import ops

        s = value(self.s, losses)
        return only(present, ops.exp(s) * only(present, losses) - s)

    def in_use(self, losses: Any, present: Any) -> Any:
        from keras import ops

        return only(present, ops.exp(value(self.s, losses)))
