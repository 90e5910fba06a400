"""Customized gate control: shared experts, experts of each task's own, and a gate for each task that sees both (Tang et al., RecSys 2020).

g_k(x) = w_k(x)·S_k(x) with w_k(x) = softmax(W_k·x) and S_k the outputs of task k's own experts and of the shared ones (equations 1–3);
g_k feeds task k's head. An expert is a copy of the trunk. With no shared expert and one own expert a task these are single nets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from worker.training.sharing import Plan
from worker.training.sharing._extraction import extract


class Spec(SpecModel):
    name: Literal["cgc"] = "cgc"
    experts: int = Field(1, ge=0, le=32, description="copies of the trunk that all tasks use")
    experts_per_task: int = Field(1, ge=0, le=8, description="copies of the trunk that one task alone uses")


EXAMPLE: dict[str, Any] = {"name": "cgc", "experts": 1, "experts_per_task": 1}


def graph(plan: Plan, tasks: Sequence[str], spec: Spec) -> dict[str, str]:
    return extract(plan, tasks, [plan.layers], spec.experts, spec.experts_per_task)
