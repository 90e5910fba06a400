"""Smooth Tchebycheff: K·μ·log Σ exp(log(L/nadir)/μ) (Lin et al. 2024, "Smooth Tchebycheff Scalarization", equation 8).

With a small μ the worst task rules alone. As in the authors' code on losses of several scales it works on log(L/nadir),
after a warm-up on Σ log L; the nadir is each task's mean loss in the last epoch of the warm-up (theirs: of one epoch
more). A job of no more epochs than `warmup_epochs` would never leave the warm-up: it is refused, or warned of where it counts its steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, count, numbers, only, shares, value

SMALLEST_LOSS = 1e-20


class Spec(SpecModel):
    name: Literal["stch"] = "stch"
    mu: float = Field(1.0, ge=1e-3, le=1e3, description="smoothness μ: the smaller, the more the worst task rules")
    warmup_epochs: int = Field(4, ge=1, le=1000, description="epochs on the sum of log losses")


EXAMPLE: dict[str, Any] = {"name": "stch", "mu": 1.0, "warmup_epochs": 4}


class Weighting(TaskWeighting):
    """`nadir` is the mean loss of the newest warm-up epoch in which a task had labels, 1 before; `over` is 1 after the warm-up."""

    @classmethod
    def least_epochs(cls, spec: Any) -> int:
        return int(spec.warmup_epochs) + 1

    def build(self, learner: Any) -> None:
        self.nadir = self.state(learner, "nadir", 1.0)
        self.over = self.state(learner, "warmed_up")
        super().build(learner)

    def on_epoch_end(self, epoch: int, mean_losses: Mapping[str, float]) -> None:
        if epoch >= self.spec.warmup_epochs:
            return
        nadir = numbers(self.nadir)
        for k, task in enumerate(self.tasks):
            nadir[k] = max(mean_losses.get(task, nadir[k]), SMALLEST_LOSS)
        self.nadir.assign(nadir)
        if epoch == self.spec.warmup_epochs - 1:
            self.over.assign([1.0] * len(self.tasks))

    def parts(self, losses: Any, present: Any) -> Any:
        """In the warm-up log L; then each task's share of the log-sum-exp, whose gradient is that of the whole."""
        from keras import ops

        scores = self._scores(losses, present)
        share = ops.stop_gradient(shares(present, scores / self.spec.mu))
        highest = ops.stop_gradient(ops.max(ops.where(present, scores, ops.full_like(scores, -1e30))))
        raised = only(present, ops.exp((ops.where(present, scores, highest) - highest) / self.spec.mu))
        smooth = self.spec.mu * ops.log(ops.maximum(ops.sum(raised), 1e-30)) + highest
        after = only(present, count(present, losses) * share * smooth)
        return ops.where(value(self.over, losses) > 0, after, only(present, scores))

    def in_use(self, losses: Any, present: Any) -> Any:
        from keras import ops

        share = count(present, losses) * shares(present, self._scores(losses, present) / self.spec.mu)
        safe = only(present, losses, 1.0)
        slope = ops.where(safe > SMALLEST_LOSS, 1.0 / ops.maximum(safe, SMALLEST_LOSS), 0.0)
        return only(present, ops.where(value(self.over, losses) > 0, share, 1.0) * slope)

    def _scores(self, losses: Any, present: Any) -> Any:
        """log(L/nadir); log L in the warm-up."""
        from keras import ops

        safe = ops.log(ops.maximum(only(present, losses, 1.0), SMALLEST_LOSS))
        return ops.where(value(self.over, losses) > 0, safe - ops.log(value(self.nadir, losses)), safe)
