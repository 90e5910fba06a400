"""What a process has compiled, lent from fit to fit and from job to job: tracing it again is most of what a test's small fit takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from worker.training.fitting.fit import FitLoop, ModelCache

if TYPE_CHECKING:
    from worker.training.fitting.learner import Compiled
    from worker.training.networks.build import KerasLayers
    from worker.training.networks.network import Network

MOST_SHAPES, MOST_LEARNERS = 12, 16
"""Of networks whose layers are held, and of what trains them; those that were asked for longest ago go first."""


class Lent(ModelCache):
    """A cache for one job after another: whatever is asked for the first time since `begin` has garbage in every number, as `soil` has it.

    Code that is traced must not be replaced meanwhile: what was traced would be lent with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._soiled: set[int] = set()

    def begin(self) -> Lent:
        """The same, for another attempt."""
        self._soiled.clear()
        self._loaded.clear()
        while len(self._keras_layers) > MOST_SHAPES:
            gone = self._keras_layers.pop(next(iter(self._keras_layers)))
            self._compiled = {key: one for key, one in self._compiled.items() if one.keras_layers is not gone}
        self._compiled = dict(list(self._compiled.items())[-MOST_LEARNERS:])
        return self

    def keras_layers(self, network: Network) -> KerasLayers:
        key = network.shape_key()
        known = self._keras_layers.pop(key, None)
        if known is not None:
            self._keras_layers[key] = known
            if id(known) not in self._soiled:
                _fill(_of_layers(known))
        layers = super().keras_layers(network)
        self._soiled.add(id(layers))
        return layers

    def compiled(self, *about: Any, **more: Any) -> Compiled:
        known = {id(one) for one in self._compiled.values()} - self._soiled
        made = super().compiled(*about, **more)
        if id(made) in known:  # the network's own numbers are loaded by now
            loaded = {id(variable) for variable in _of_layers(made.keras_layers)}
            _fill(variable for variable in _of_learner(made) if id(variable) not in loaded)
        self._soiled.add(id(made))
        self._compiled |= {key: self._compiled.pop(key) for key, one in list(self._compiled.items()) if one is made}
        return made


FITS, ANSWERS = Lent(), Lent()
"""Of this process: for networks that train, and for those that only answer."""


def fit_loop(_: ModelCache, *others: Any) -> FitLoop:
    """A job's fit loop, with what the jobs before it have compiled."""
    return FitLoop(FITS.begin(), *others, inference_cache=ANSWERS.begin())


def soil(cache: ModelCache) -> ModelCache:
    """The same with garbage in every number: NaN, or a whole number that nothing begins with. What a fit neither sets nor finds in its
    checkpoint shows."""
    cache._loaded.clear()
    for layers in cache._keras_layers.values():
        _fill(_of_layers(layers))
    for compiled in cache._compiled.values():
        _fill(_of_learner(compiled))
    return cache


def _of_layers(layers: KerasLayers) -> list[Any]:
    models = [model for model in (layers.forward, layers.body, layers.head) if model is not None]
    return [variable for model in models for variable in model.variables]


def _of_learner(compiled: Compiled) -> list[Any]:
    weighting = compiled.learner.weighting
    held = [compiled.learner, compiled.learner.optimizer, *([weighting] if weighting is not None else [])]
    return [variable for one in held for variable in one.variables]


def _fill(variables: Iterable[Any]) -> None:
    for variable in variables:
        garbage = np.nan if keras.backend.is_float_dtype(variable.dtype) else 77
        variable.assign(np.full(variable.shape, garbage, keras.ops.convert_to_numpy(variable).dtype))
