"""A network as it is known without Keras: its layers in order, the output and the inputs of each, and the places to cut it.

A program that has Keras writes a `Trace` (`worker/training/networks/trunk.py`); programs without it read that. All code that names layers
or treats them apart reads the same one: freezing, unfreezing, rates by depth, adapters, pairs of layers, stitches, copies by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, Field

from app.spec.base import SpecModel

Shape = tuple[int, ...]

INPUT = "input"
"""The network's input, which feeds the first layers and is no layer."""

NORMS = frozenset({"BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization"})
ACTIVATIONS = frozenset({"Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"})
FLATTENERS = frozenset({
    "Flatten", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
})  # fmt: skip


class TracedLayer(SpecModel):
    """One layer. Layers of a nested model stand in its place, named MODEL-LAYER. A layer that is called several times stands once for
    each call: the first one has all of its numbers, the others are called NAME-call2, …, and have none of their own."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: str = Field(description="the Keras class")
    shape: list[int] = Field(description="what leaves it, without the batch")
    parameters: int = Field(description="how many numbers it holds, statistics included")
    after: list[str] = Field(description="what feeds it, each once; `input` for the network's input")
    kernel: bool = Field(description="whether any of its numbers stand in two or more axes: it begins a group")
    adaptable: bool = Field(description="whether Keras can put a low-rank adapter beside its kernel")
    within: str | None = Field(None, description="the nested model that it comes from")
    drawn_as: str = Field(description="the name from which its first numbers and its dropout are drawn")
    same_as: str | None = Field(
        None, description="where this is a further call of a layer: the name of its first one, which has its numbers"
    )

    @property
    def own_name(self) -> str:
        """Its name within the nested model that it comes from."""
        return self.name if self.within is None else self.name.removeprefix(f"{self.within}-")


class Trace(SpecModel):
    """A network before its heads. `layers` stand in an order in which they can be computed, the last one being `features`."""

    model_config = ConfigDict(frozen=True)

    input: list[int]
    layers: list[TracedLayer]

    @property
    def features(self) -> str:
        """The layer whose output the heads are given."""
        return self.layers[-1].name if self.layers else INPUT

    @property
    def features_shape(self) -> Shape:
        return tuple(self.layers[-1].shape if self.layers else self.input)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @cached_property
    def map(self) -> str | None:
        """The layer whose output still has places, such as those of a picture, and is all that the flat features are made of: what
        the first layer that flattens is given. None where there is none."""
        for run in self.runs:
            if any(layer.kind in FLATTENERS for layer in run):
                given = run[0].after[0]
                return given if len(run) == 1 and given != INPUT else None
        return self.features if self.layers and len(self.features_shape) > 1 else None

    @cached_property
    def behind_map(self) -> list[str]:
        """The layers with numbers that a head on the map does not see."""
        place = self.names.index(self.map) if self.map else len(self.layers)
        return [layer.name for layer in self.layers[place + 1 :] if layer.parameters]

    @cached_property
    def names(self) -> list[str]:
        return [layer.name for layer in self.layers]

    @cached_property
    def by_name(self) -> dict[str, TracedLayer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def nested(self) -> dict[str, list[str]]:
        """The layers of each nested model, by its name, which stands for all of them, and for the output of the last."""
        members: dict[str, list[str]] = {}
        for layer in self.layers:
            if layer.within is not None:
                members.setdefault(layer.within, []).append(layer.name)
        return members

    def meant(self, name: str) -> list[str]:
        """The layers that `name` stands for, in order; none where there is no such layer."""
        return [name] if name in self.by_name else self.nested.get(name, [])

    def in_each_call(self, names: Iterable[str]) -> list[str]:
        """The layers among `names`, in order, each in all of its calls: a layer is frozen in all of them or in none."""
        meant = {self.by_name[name].same_as or name for name in names}
        return [layer.name for layer in self.layers if (layer.same_as or layer.name) in meant]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The output shape of each layer and of each nested model."""
        shapes = {layer.name: tuple(layer.shape) for layer in self.layers}
        return shapes | {name: shapes[inner[-1]] for name, inner in self.nested.items()}

    @cached_property
    def runs(self) -> list[list[TracedLayer]]:
        """The layers between each two places that the whole signal passes through: a skip and what it skips are one run."""
        return self._between({name: place for place, layer in enumerate(self.layers) for name in layer.after})

    @cached_property
    def learnt_runs(self) -> list[list[TracedLayer]]:
        """The same, where what a layer without numbers makes of the input, as the mask of a text's end, is no skip."""
        learnt, last = set[str](), dict[str, int]()
        for place, layer in enumerate(self.layers):
            met = {INPUT, *learnt}.intersection(layer.after)
            if met - {INPUT} or layer.parameters or layer.same_as is not None:
                last |= dict.fromkeys(met or layer.after, place)
                learnt.add(layer.name)
        return self._between(last)

    def _between(self, last: Mapping[str, int]) -> list[list[TracedLayer]]:
        """Runs, given the last place at which each layer's output is needed."""
        runs, open_ = list[list[TracedLayer]](), list[TracedLayer]()
        reach = last.get(INPUT, 0)
        for place, layer in enumerate(self.layers):
            open_.append(layer)
            if reach <= place:
                runs.append(open_)
                open_ = []
            reach = max(reach, last.get(layer.name, place))
        return runs

    def _gathered(
        self, runs: Sequence[list[TracedLayer]], lead: frozenset[str] = frozenset()
    ) -> list[list[TracedLayer]]:
        """Groups: a run with a kernel, and the runs without one that follow it; those before the first kernel belong to the first.

        `lead`: classes of layers from which on runs without a kernel belong to the group after them instead.
        """
        groups, waiting = list[list[TracedLayer]](), list[TracedLayer]()
        for run in runs:
            if any(layer.kernel for layer in run):
                groups.append([*waiting, *run])
                waiting = []
            elif not groups or waiting or run[0].kind in lead:
                waiting.extend(run)
            else:
                groups[-1].extend(run)
        if waiting:
            groups = [*groups[:-1], [*groups[-1], *waiting]] if groups else [waiting]
        return groups

    @cached_property
    def groups(self) -> list[list[str]]:
        """The groups frozen, unfrozen and given a rate as one, lowest first. The depth of a group is its distance from the heads."""
        return [[layer.name for layer in group] for group in self._gathered(self.learnt_runs)]

    @cached_property
    def stages(self) -> list[list[TracedLayer]]:
        """The groups, with layers that flatten maps at the beginning of the next one: a convolution's stage gives maps."""
        return self._gathered(self.runs, FLATTENERS)

    @cached_property
    def points(self) -> list[str]:
        """The layers at which each run with a kernel ends, its norm and activation counted to it, and for the last one the pooling
        that gives the features. Dropout is no point: a student's is random."""
        points: list[str] = []
        inside = False
        for run in self.learnt_runs:
            if any(layer.kernel for layer in run):
                points.append(run[-1].name)
                inside = True
            elif inside and (run[0].kind in NORMS | ACTIVATIONS or self._pools_to_features(run[0])):
                points[-1] = run[-1].name
            else:
                inside = False
        return points

    @cached_property
    def digest(self) -> str:
        """A hash, the same for equal traces alone."""
        data = self.model_dump()
        for layer in data["layers"]:
            if layer["same_as"] is None:  # as in traces from before there was such a field
                del layer["same_as"]
        return _short(data)

    def _pools_to_features(self, layer: TracedLayer) -> bool:
        return layer.name == self.features and layer.kind.startswith("Global")


def key(architecture: dict[str, Any], shape: Sequence[int]) -> str:
    """A hash, the same for the same architecture, as data, on inputs of the same shape alone."""
    return _short([architecture, list(shape)])


def _short(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
