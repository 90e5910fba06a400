"""Cross-stitch networks: a tower for each task, and after each layer learnt mixtures of what the towers give (Misra et al., CVPR 2016).

x̃_k = Σ_j α_kj·x_j (equation 1), one α for each channel, after every convolution (its norm, activation and pooling counted to it) and
every dense layer. A tower is a copy of the trunk and begins as the task's single net does. At α = 1 the towers are single nets, until
the first step moves the α.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from app.spec.faults import Fault, Invalid
from worker.training.sharing import INPUT, Plan


class Spec(SpecModel):
    name: Literal["cross_stitch"] = "cross_stitch"
    alpha: float = Field(0.9, gt=0, le=1, description="a tower's share in its own mixture at the start")
    per: Literal["channel", "layer"] = Field("channel", description="where an α is the same")


EXAMPLE: dict[str, Any] = {"name": "cross_stitch", "alpha": 0.9}


def graph(plan: Plan, tasks: Sequence[str], spec: Spec) -> dict[str, str]:
    if len(tasks) < 2:
        raise Invalid([Fault("/name", "a lone task has no other tower to be stitched to", "use hard_sharing")])
    at = dict.fromkeys(tasks, INPUT)
    for number, stage in enumerate(plan.stages, 1):
        towers = {task: plan.copy(stage, task, at[task], as_trunk=True) for task in tasks}
        at = plan.stitch(f"stitch{number}", towers, spec.alpha, spec.per)
    return at
