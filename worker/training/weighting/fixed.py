"""A constant weight for each task: the task's `weight` in the spec."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, only


class Spec(SpecModel):
    name: Literal["fixed"] = "fixed"


EXAMPLE: dict[str, Any] = {"name": "fixed"}


class Weighting(TaskWeighting):
    """Σ w·L over the tasks that are present; the weights are not normalised."""

    uses_task_weights: ClassVar[bool] = True

    def parts(self, losses: Any, present: Any) -> Any:
        return self.in_use(losses, present) * only(present, losses)

    def in_use(self, losses: Any, present: Any) -> Any:
        from keras import ops

        return only(present, ops.convert_to_tensor(self.task_weights, dtype=losses.dtype))
