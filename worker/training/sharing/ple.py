"""Progressive layered extraction: cgc level upon level (Tang et al., RecSys 2020).

Shared and own layers part step by step. The trunk is cut into `levels` parts; level j has experts that are copies of part j.
g_kj(x) = w_kj(g_k,j−1(x))·S_kj(x): a task's experts read its own gate below, shared experts read the shared gate below, and the shared
gate sees all experts (equation 5 and figure 5). With one level it is cgc.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from app.spec.faults import Fault, Invalid
from worker.training.sharing import Plan
from worker.training.sharing._extraction import extract


class Spec(SpecModel):
    name: Literal["ple"] = "ple"
    levels: int = Field(2, ge=1, le=8, description="parts of the trunk: each has a layer with a kernel, or more")
    experts: int = Field(1, ge=0, le=32, description="of each level, used by all tasks")
    experts_per_task: int = Field(1, ge=0, le=8, description="of each level, used by one task")


EXAMPLE: dict[str, Any] = {"name": "ple", "levels": 2, "experts": 1, "experts_per_task": 1}


def graph(plan: Plan, tasks: Sequence[str], spec: Spec) -> dict[str, str]:
    cut = plan.stages
    if spec.levels > len(cut):
        message = f"the trunk has {len(cut)} layers with a kernel: too few for {spec.levels} levels"
        raise Invalid([Fault("/levels", message, f"at most {len(cut)}")])
    least, over = divmod(len(cut), spec.levels)
    ends = [(number + 1) * least + min(number + 1, over) for number in range(spec.levels)]
    levels = [
        [layer for stage in cut[start:end] for layer in stage] for start, end in zip([0, *ends], ends, strict=False)
    ]
    return extract(plan, tasks, levels, spec.experts, spec.experts_per_task)
