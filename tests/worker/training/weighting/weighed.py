"""Weightings as a fit uses them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from worker.training.weighting import TaskWeighting

tf = pytest.importorskip("tensorflow")

keras = pytest.importorskip("keras")

ALL = [True, True]


def built(module: ModuleType, weights: tuple[float, ...] = (1.0, 1.0), first: dict[str, float] | None = None) -> Any:
    tasks = dict(zip("abcd", weights, strict=False))
    weighting = module.Weighting(module.Spec(), tasks)
    learner = keras.Model()
    weighting.build(learner)
    weighting.learner = learner
    weighting.start(first or dict.fromkeys(tasks, 1.0))
    return weighting


def total(
    weighting: TaskWeighting, losses: list[float], present: list[bool]
) -> tuple[float, np.ndarray, list[np.ndarray]]:
    """The total, its gradient by the losses, its gradient by the weighting's own variables."""
    values = tf.Variable(losses, dtype="float32")
    own = [variable.value for variable in weighting.variables]
    with tf.GradientTape() as tape:
        found = weighting.combine(tf.convert_to_tensor(values), tf.constant(present))
    by_losses, *by_own = tape.gradient(found, [values, *own], unconnected_gradients="zero")
    return float(found), np.asarray(by_losses), [np.asarray(g) for g in by_own]


def in_use(weighting: TaskWeighting, losses: list[float], present: list[bool]) -> np.ndarray:
    return np.asarray(weighting.in_use(tf.constant(losses), tf.constant(present)))
