"""The plain sum of the losses, weight 1 each (LibMTL: EW): the baseline that most weightings fail to beat clearly."""

from __future__ import annotations

from typing import Any, Literal

from app.spec.base import SpecModel
from worker.training.weighting import TaskWeighting, only


class Spec(SpecModel):
    name: Literal["equal"] = "equal"


EXAMPLE: dict[str, Any] = {"name": "equal"}


class Weighting(TaskWeighting):
    """Σ L over the tasks that are present: a sum, not a mean."""

    def parts(self, losses: Any, present: Any) -> Any:
        return only(present, losses)

    def in_use(self, losses: Any, present: Any) -> Any:
        from keras import ops

        return ops.cast(present, losses.dtype)
