"""What a process has compiled, lent from fit to fit, since tracing it again is most of what a fit of a test would take."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from worker.training.fitting.fit import ModelCache


def soil(cache: ModelCache) -> ModelCache:
    """The same with garbage in every number: NaN, or a whole number that nothing begins with. What a fit neither sets nor finds in its
    checkpoint shows."""
    cache._loaded.clear()
    models = [model for layers in cache._keras_layers.values() for model in (layers.forward, layers.body, layers.head)]
    held: list[Any] = [model for model in models if model is not None]
    for compiled in cache._compiled.values():
        weighting = compiled.learner.weighting
        held += [compiled.learner, compiled.learner.optimizer, *([weighting] if weighting is not None else [])]
    for variable in (variable for one in held for variable in one.variables):
        garbage = np.nan if keras.backend.is_float_dtype(variable.dtype) else 77
        variable.assign(np.full(variable.shape, garbage, keras.ops.convert_to_numpy(variable).dtype))
    return cache
