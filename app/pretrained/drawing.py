"""Draws a `keras-graph` as plain data, layer by layer, with the arrays that its layers hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Tensor = dict[str, Any]


NORM_MOMENTUM = 0.9
"""Of BatchNormalization's running statistics. Their makers took 0.99 and more, for a hundred thousand steps: after a hundred, a control
from scratch would be asked with statistics that have not arrived."""


class Drawing:
    """A graph of one input. `arrays`: of each layer in the order of its Keras layer's `.weights`."""

    def __init__(self, given: str, shape: Sequence[int], *, integers: bool = False):
        self._given = {"name": given, "shape": list(shape), **({"integers": True} if integers else {})}
        self._layers: dict[str, dict[str, Any]] = {}
        self._calls: list[dict[str, Any]] = []
        self.arrays: dict[str, list[Array]] = {}
        self.input: Tensor = {"tensor": given}

    def add(
        self,
        name: str,
        kind: str,
        *inputs: Any,
        arrays: Sequence[Array] = (),
        named: Mapping[str, Tensor] = MappingProxyType({}),
        **config: Any,
    ) -> Tensor:
        """Calls a new layer, with the tensors `named` as named arguments; its first tensor."""
        self._layers[name] = {"kind": kind, **({"config": config} if config else {})}
        self._calls.append(
            {"name": name, "layer": name, "args": list(inputs), **({"kwargs": dict(named)} if named else {})}
        )
        if arrays:
            self.arrays[name] = [np.ascontiguousarray(array, np.float32) for array in arrays]
        return {"tensor": name}

    def graph(self, kind: str, features: Tensor) -> dict[str, Any]:
        """What `app.spec.architectures.keras_graph.Spec` wants."""
        return {
            "kind": kind,
            "given": [self._given],
            "layers": self._layers,
            "calls": self._calls,
            "features": features["tensor"],
        }
