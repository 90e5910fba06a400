"""Dynamic weight average: K·softmax(r/T), r = L(e − 1)/L(e − 2) (Liu, Johns and Davison 2019, equation 7).

L(e) is a task's mean training loss in epoch e: a task whose loss falls slowly gets more weight. The first two epochs have
weight 1 each. T = 2 as in the paper; a large T comes near `equal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, count, numbers, only, shares, value

SMALLEST_LOSS = 1e-12


class Spec(SpecModel):
    name: Literal["dwa"] = "dwa"
    T: float = Field(2.0, gt=0, le=1e6, description="temperature: the larger, the more even")


EXAMPLE: dict[str, Any] = {"name": "dwa", "T": 2.0}


class Weighting(TaskWeighting):
    """`ratio` is r, 1 until a task has two epochs behind it; `latest` its newest epoch's mean loss, negative where it has none."""

    @classmethod
    def least_epochs(cls, spec: Any) -> int:  # noqa: ARG003
        return 3

    def build(self, learner: Any) -> None:
        self.ratio = self.state(learner, "ratio", 1.0)
        self.latest = self.state(learner, "latest", -1.0)
        super().build(learner)

    def on_epoch_end(self, epoch: int, mean_losses: Mapping[str, float]) -> None:  # noqa: ARG002
        ratio, latest = numbers(self.ratio), numbers(self.latest)
        for k, task in enumerate(self.tasks):
            if task in mean_losses:
                if latest[k] > SMALLEST_LOSS:  # 0/0 says nothing about the speed of learning
                    ratio[k] = mean_losses[task] / latest[k]
                latest[k] = mean_losses[task]
        self.ratio.assign(ratio)
        self.latest.assign(latest)

    def parts(self, losses: Any, present: Any) -> Any:
        return self.in_use(losses, present) * only(present, losses)

    def in_use(self, losses: Any, present: Any) -> Any:
        return count(present, losses) * shares(present, value(self.ratio, losses) / self.spec.T)
