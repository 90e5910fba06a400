"""Multi-gate mixture-of-experts: experts that all tasks use, and a gate for each task that says how much (Ma et al., KDD 2018).

f_k(x) = Σ_i g_k(x)_i · f_i(x) with g_k(x) = softmax(W_k·x) (equations 6 and 7); f_k feeds task k's head. An expert is a copy of the
trunk. With one expert it is hard sharing, bit by bit: its gate would be 1, and the first expert begins as the plain trunk does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from worker.training.sharing import INPUT, Plan


class Spec(SpecModel):
    name: Literal["mmoe"] = "mmoe"
    experts: int = Field(4, ge=1, le=32, description="copies of the trunk, used by all tasks")


EXAMPLE: dict[str, Any] = {"name": "mmoe", "experts": 4}


def graph(plan: Plan, tasks: Sequence[str], spec: Spec) -> dict[str, str]:
    experts = [
        plan.copy(plan.layers, f"expert{number}", INPUT, as_trunk=number == 1) for number in range(1, spec.experts + 1)
    ]
    return {task: plan.mix(task, INPUT, experts, "all-experts") for task in tasks}
