"""Hard parameter sharing: one trunk for all tasks, a head for each (Caruana 1993)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from app.spec.base import SpecModel
from worker.training.sharing import INPUT, Plan


class Spec(SpecModel):
    name: Literal["hard_sharing"] = "hard_sharing"


EXAMPLE: dict[str, Any] = {"name": "hard_sharing"}


def graph(plan: Plan, tasks: Sequence[str], spec: Spec) -> dict[str, str]:  # noqa: ARG001 - it has no fields
    return dict.fromkeys(tasks, plan.copy(plan.layers, "", INPUT))
