"""Conflict-averse gradient: near the mean gradient g₀, the direction that helps the worst task most (Liu et al. 2021, algorithm 1).

g₀ + c·‖g₀‖/‖g_w‖·g_w, where g_w = Σ w·g and w on the simplex minimises g_w·g₀ + c·‖g₀‖·‖g_w‖; `calpha` is c, and c = 0 the plain
mean. `rescale` 1 (LibMTL's default) divides by 1 + c², 2 by 1 + c, 0 not at all; then times K, as the other weightings are sums. Equal
gradients g give K·(1 + c)/(1 + c²)·g, so one task alone does not get its plain gradient. Heads do.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from app.spec.base import SpecModel
from worker.training.weighting import GradientStatistics, Numbers, TaskWeighting
from worker.training.weighting._simplex import least

SMALLEST_NORM = 1e-6  # of all gradients' length: below it g_w is rounding, and its direction noise


class Spec(SpecModel):
    name: Literal["cagrad"] = "cagrad"
    calpha: float = Field(0.5, ge=0, lt=1, description="c: how far from the mean gradient the step may go")
    rescale: Literal[0, 1, 2] = Field(1, description="divide by 1 (0), 1 + c² (1) or 1 + c (2)")

    @field_validator("rescale", mode="before")
    @classmethod
    def _number(cls, rescale: Any) -> Any:
        if isinstance(rescale, bool):  # among literals pydantic takes true for 1
            raise PydanticCustomError("literal_error", "Input should be 0, 1 or 2")
        return rescale


EXAMPLE: dict[str, Any] = {"name": "cagrad", "calpha": 0.5, "rescale": 1}


class Weighting(TaskWeighting):
    """Without state."""

    level: ClassVar[Literal["loss", "gradient"]] = "gradient"

    def weigh(self, statistics: GradientStatistics) -> Numbers:
        gram, k, c = statistics.gram, len(statistics.gram), self.spec.calpha
        with_mean = gram.mean(axis=1)
        mean_norm = math.sqrt(max(float(with_mean.mean()), 0.0))
        w = least(gram, with_mean, c * mean_norm)
        norm = math.sqrt(max(float(w @ gram @ w), 0.0))
        floor = SMALLEST_NORM * math.sqrt(max(float(np.trace(gram)), 0.0))
        weights = np.full(k, 1 / k) + (c * mean_norm / norm * w if norm > floor else 0.0)
        return np.asarray(k * weights / (1.0, 1 + c * c, 1 + c)[self.spec.rescale])
