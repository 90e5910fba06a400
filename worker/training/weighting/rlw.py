"""Random weights: K·softmax(z), z ~ N(0, 1) anew at each step (Lin et al. 2022, "Reasonable Effectiveness of Random Weighting").

The litmus test of all others: what does not beat it has learnt nothing about the tasks. The weights add up to K; LibMTL's
add up to 1, which is a K times smaller learning rate.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, count, only, shares, value


class Spec(SpecModel):
    name: Literal["rlw"] = "rlw"


EXAMPLE: dict[str, Any] = {"name": "rlw"}


class Weighting(TaskWeighting):
    """`drawn` is (K,), a function of (run seed, step) alone: the same on every backend, and after a restart."""

    def build(self, learner: Any) -> None:
        self.drawn = self.state(learner, "draw")
        super().build(learner)

    def draw(self, seed: int, number: int) -> NDArray[np.float32]:
        return np.random.default_rng([seed, number, *b"rlw"]).standard_normal(len(self.tasks)).astype(np.float32)

    def parts(self, losses: Any, present: Any) -> Any:
        return self.in_use(losses, present) * only(present, losses)

    def in_use(self, losses: Any, present: Any) -> Any:
        return count(present, losses) * shares(present, value(self.drawn, losses))
