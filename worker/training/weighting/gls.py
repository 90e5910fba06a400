"""The geometric mean of the losses, (Π L)^(1/K) (Chennupati et al. 2019, "MultiNet++", equation 2): blind to their scales.

Losses must be positive, and ours are; one that reaches 0 counts as 1e-20. Measured on short runs, it may over-correct: of
three regressions with targets ×1, ×10 and ×100 the smallest ruled.
"""

from __future__ import annotations

from typing import Any, Literal

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, count, only

SMALLEST_LOSS = 1e-20


class Spec(SpecModel):
    name: Literal["gls"] = "gls"


EXAMPLE: dict[str, Any] = {"name": "gls"}


class Weighting(TaskWeighting):
    """The total is shared out evenly: each task's part is weight · loss = mean / K."""

    def parts(self, losses: Any, present: Any) -> Any:
        from keras import ops

        mean, k = self._mean(losses, present)
        return only(present, ops.ones_like(losses) * mean / k)

    def in_use(self, losses: Any, present: Any) -> Any:
        from keras import ops

        mean, k = self._mean(losses, present)
        safe = only(present, losses, 1.0)
        return only(present, ops.where(safe > SMALLEST_LOSS, mean / k / ops.maximum(safe, SMALLEST_LOSS), 0.0))

    def _mean(self, losses: Any, present: Any) -> tuple[Any, Any]:
        """The geometric mean over the tasks that are present, and how many they are (at least 1)."""
        from keras import ops

        k = ops.maximum(count(present, losses), 1.0)
        return ops.exp(ops.sum(ops.log(ops.maximum(only(present, losses, 1.0), SMALLEST_LOSS))) / k), k
