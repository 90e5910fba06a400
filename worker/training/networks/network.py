"""A network by value: an architecture, its heads, and a list of arrays for each layer. No Keras, but to trace the architecture.

Methods build networks, copy between them and hand them to a fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from app.data import inputs
from app.spec import architectures, base, tasks
from worker.training import sharing
from worker.training.sharing import hard_sharing
from worker.training.tasks import heads

if TYPE_CHECKING:
    from app.spec.architectures import Architecture
    from app.spec.base import SpecModel
    from app.spec.data import InputSchema
    from app.spec.models import HeadSpec
    from app.spec.trace import Trace
    from worker.training.data.scaling import Scaling
    from worker.training.sharing import Graph
    from worker.training.tasks.heads import Task

Weights = dict[str, list[np.ndarray]]

FEATURES = "/features"
"""The name of features beside the tasks' logits in a network's outputs; no task can have it."""


@dataclass(frozen=True)
class Lora:
    """Adapters of rank `rank` beside the kernels of the layers `targets`: W + alpha/rank · A·B (Hu et al. 2021, equation 3)."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


@dataclass
class Network:
    """A network by value. `weights` has an entry for every layer of trunk and heads that has any numbers.

    `sharing`: the spec of how its tasks share copies of the trunk. `lora`: adapters that a fit trains in place of the trunk. They exist
    only within the fit, which returns a network with the adapters merged into its kernels. `input_resize`: the shape that the trunk sees,
    where it differs from the input's.
    """

    architecture: Architecture
    input: InputSchema
    tasks: dict[str, Task]
    heads: dict[str, HeadSpec]
    scaling: Scaling
    weights: Weights
    precision: str = "float32"
    lora: Lora | None = None
    input_resize: list[int] | None = None
    sharing: SpecModel = field(default_factory=hard_sharing.Spec)

    @property
    def scaled_shape(self) -> list[int]:
        """The shape of a scaled row, without the batch."""
        return inputs.prepared_shape(self.input)

    @property
    def trunk_shape(self) -> list[int]:
        """The shape that the trunk sees, without the batch."""
        return self.input_resize or self.scaled_shape

    @property
    def trace(self) -> Trace:
        """The trace of its trunk, layer by layer."""
        from worker.training.networks import trunk

        return trunk.trace(self.architecture, self.trunk_shape)

    @property
    def graph(self) -> Graph:
        """The layers between the trunk's input and the heads."""
        on_map = [name for name, task in self.tasks.items() if tasks.on_map(task.type)]
        return sharing.graph(self.sharing, self.trace, self.tasks or (FEATURES,), on_map)

    @property
    def trunk(self) -> list[str]:
        """The layers that the tasks share: under hard sharing those of the architecture."""
        return [name for name in self.graph.shared if name != "head_flatten"]

    @property
    def head_layers(self) -> dict[str, list[str]]:
        """The layers with numbers of each task's head, the logits last."""
        return {name: [layer for layer in heads.layer_names(name) if layer in self.weights] for name in self.tasks}

    def shape_key(self) -> str:
        """All of a network but its numbers; networks of equal key can share Keras layers."""
        return json.dumps(
            [
                architectures.as_data(self.architecture),
                self.scaled_shape,
                self.trunk_shape,
                {name: [task.type, task.units, self.heads[name].model_dump()] for name, task in self.tasks.items()},
                self.precision,
                None if self.lora is None else [self.lora.rank, self.lora.alpha, self.lora.targets],
                base.plain(self.sharing),
            ]
        )

    @property
    def parameters(self) -> int:
        return sum(prod(array.shape) for arrays in self.weights.values() for array in arrays)
