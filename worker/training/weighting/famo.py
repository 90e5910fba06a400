"""Fast adaptive multitask optimisation: weights z/L normalised to sum 1, z = softmax(ξ) (Liu et al. 2023, "FAMO", algorithm 1).

ξ moves so that all tasks' log losses fall alike: after each update the same batch is looked at again, and the tasks that
gained less get more weight. Cost: two forward passes more a step, before and after the update, both in inference mode so
that dropout and BatchNorm make no difference (one pass more would do for a network without them); no gradient is stored.
Measured: 1.9 times a step of `equal` (three tasks, a CNN, batches of 64, two CPU cores; the four on gradients: 2.1 to 2.2).
ξ is trained by Adam with L2 decay `gamma`, as in the authors' code, which also clips the shared trunk's gradient to norm 1; nothing is
clipped here. The weights add up to 1, not to K.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from app.spec.base import SpecModel
from worker.training.weighting import Numbers, TaskWeighting, numbers, only, shares, value
from worker.training.weighting._adam import Adam

SMALLEST_LOSS = 1e-8


class Spec(SpecModel):
    name: Literal["famo"] = "famo"
    w_lr: float = Field(0.025, gt=0, le=1, description="learning rate of the tasks' weights")
    gamma: float = Field(1e-3, ge=0, le=1, description="how strongly the weights are drawn together (L2 decay of ξ)")


EXAMPLE: dict[str, Any] = {"name": "famo"}


class Weighting(TaskWeighting):
    """`xi` is (K,), moved by `after_step`; the weights are constants for the network's gradient."""

    second_forward: ClassVar[bool] = True

    def build(self, learner: Any) -> None:
        self.xi = self.state(learner, "xi")
        self.adam = Adam(self, learner, self.spec.w_lr)
        super().build(learner)

    def parts(self, losses: Any, present: Any) -> Any:
        """The total's gradient is Σ w·∇L with w held constant; its value Σ w·L (the authors log Σ z·log L / Σ z/L)."""
        return self.in_use(losses, present) * only(present, losses)

    def in_use(self, losses: Any, present: Any) -> Any:
        from keras import ops

        z = shares(present, value(self.xi, losses))
        raised = only(present, z / ops.stop_gradient(ops.maximum(only(present, losses, 1.0), SMALLEST_LOSS)))
        return raised / ops.maximum(ops.sum(raised), 1e-30)

    def after_step(self, before: Numbers, after: Numbers, present: NDArray[np.bool_]) -> None:
        here = np.flatnonzero(present)
        if not len(here) or not (np.isfinite(before[here]).all() and np.isfinite(after[here]).all()):
            return
        gain = np.log(np.maximum(before[here], SMALLEST_LOSS)) - np.log(np.maximum(after[here], SMALLEST_LOSS))
        xi = numbers(self.xi)
        raised = np.exp(xi[here] - xi[here].max())
        z = raised / raised.sum()
        xi[here] += self.adam.step(z * (gain - z @ gain) + self.spec.gamma * xi[here], here)
        self.xi.assign(xi)
