"""Which channels of a trunk's layers stand and fall together, and the same trunk with fewer of them (Li et al. 2017, arXiv:1608.08710).

A dense or convolutional layer makes a group of channels. Layers that treat each channel alone pass its group on, layers that add or
multiply tensors join the groups of these, and whoever reads a group loses the inputs that it loses. Whatever is not known here keeps
all the channels that it reads and makes: attention, recurrent layers, concatenation, the paddings that widen a residual stream, layers
that are called again. Of a residual block with such a stream only the inner convolution becomes narrower, as in section 3.3 of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import keras
import numpy as np

from app.spec.trace import INPUT
from worker.training.networks.opened import LayerCall, Trunk

_MAKES = {"Dense": "units", "Conv1D": "filters", "Conv2D": "filters", "Conv3D": "filters"}
"""Layers whose kernel is (…, read, made), and the argument that says how many they make."""

_OF_ALL_SIDES = (
    "SpatialDropout", "MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling", "ZeroPadding", "Cropping",
    "UpSampling",
)  # fmt: skip
_EACH_ALONE = {
    "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "BatchNormalization", "DepthwiseConv1D", "DepthwiseConv2D",
    *(f"{kind}{sides}D" for kind in _OF_ALL_SIDES for sides in (1, 2, 3)),
}  # fmt: skip

_JOIN = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"})

_ACROSS = frozenset({"softmax", "log_softmax", "sparsemax", "glu"})
"""Activations in which channels meet."""


@dataclass(frozen=True)
class Channels:
    """The last axis of a tensor: the channels of a group, `times` over where maps were made flat."""

    group: int
    times: int = 1


@dataclass
class Groups:
    """`reads`, `gives`: of each layer the channels of its input, where it has one alone, and of its output. `makers`: of each group the
    layers that make it."""

    sizes: list[int] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)
    makers: dict[int, list[str]] = field(default_factory=dict)
    reads: dict[str, Channels] = field(default_factory=dict)
    gives: dict[str, Channels] = field(default_factory=dict)
    _joined: list[int] = field(default_factory=list)

    def new(self, size: int, *, fixed: bool = False) -> Channels:
        self.sizes.append(size)
        self._joined.append(len(self._joined))
        if fixed:
            self.fixed.add(len(self.sizes) - 1)
        return Channels(len(self.sizes) - 1)

    def root(self, group: int) -> int:
        while self._joined[group] != group:
            group = self._joined[group]
        return group

    def hold(self, group: int) -> None:
        self.fixed.add(self.root(group))

    def join(self, one: int, other: int) -> None:
        one, other = sorted((self.root(one), self.root(other)))
        if one == other:
            return
        self._joined[other] = one
        self.makers[one] = [*self.makers.get(one, []), *self.makers.pop(other, [])]
        if other in self.fixed:
            self.fixed.add(one)

    def kept(self, group: int, width: float) -> int:
        """How many of its channels stay."""
        root = self.root(group)
        size = self.sizes[root]
        return size if root in self.fixed else max(1, int(width * size + 0.5))


def groups(trunk: Trunk) -> Groups:
    """The groups of all channels in a trunk."""
    found = Groups()
    found.gives[INPUT] = found.new(_last(trunk.trace.input), fixed=True)
    again = {part.same_as for part in trunk.parts.values() if part.same_as is not None}
    for name, part in trunk.parts.items():
        read = [found.gives[source.layer] for source in part.sources.values()]
        known = (
            name not in again and part.same_as is None and not any(source.number for source in part.sources.values())
        )
        gives = _passed(found, name, part, read, trunk) if known else None
        if gives is None:
            for channels in read:
                found.hold(channels.group)
            gives = found.new(_last(trunk.trace.by_name[name].shape), fixed=True)
        found.gives[name] = gives
        if len(read) == 1:
            found.reads[name] = read[0]
    return found


def _passed(found: Groups, name: str, part: LayerCall, read: list[Channels], trunk: Trunk) -> Channels | None:
    """The channels of a layer's output; None: nothing is known of them."""
    layer, kind = part.operation, type(part.operation).__name__
    if getattr(keras.layers, kind, None) is not type(layer) or getattr(layer, "data_format", None) == "channels_first":
        return None
    across = getattr(getattr(layer, "activation", None), "__name__", "") in _ACROSS
    before = [
        trunk.trace.input if source.layer == INPUT else trunk.trace.by_name[source.layer].shape
        for source in part.sources.values()
    ]
    after = trunk.trace.by_name[name].shape
    if kind in _MAKES and getattr(layer, "groups", 1) == 1 and len(read) == 1:
        made = found.new(int(after[-1]), fixed=across)
        found.makers[made.group] = [name]
        return made
    if across:
        return None
    if kind in _JOIN and len({(one.times, tuple(sides[-1:])) for one, sides in zip(read, before, strict=True)}) == 1:
        for one in read[1:]:
            found.join(read[0].group, one.group)
        return read[0]
    if len(read) != 1:
        return None
    alone = (
        kind in _EACH_ALONE
        and getattr(layer, "depth_multiplier", 1) == 1
        and getattr(layer, "axis", -1) in (-1, len(after))
    )
    if alone or (kind == "Reshape" and tuple(before[0][-1:]) == tuple(after[-1:])):
        return read[0]
    if kind == "Flatten":
        return Channels(read[0].group, read[0].times * prod(before[0][:-1]))
    return None


def build(trunk: Trunk, width: float, inputs: Any) -> Any:
    """The trunk's output with `width` of its channels, on a symbolic input. Layers keep their names."""
    found, operations, outputs = groups(trunk), dict[str, Any](), {INPUT: inputs}
    for name, part in trunk.parts.items():
        if part.same_as is None:
            operations[name] = part.made(name, _narrower(found, name, part, width))
        outputs[name] = part.call(operations[part.same_as or name], outputs)
    features = outputs[trunk.trace.features]
    return features[0] if isinstance(features, list | tuple) else features


def _narrower(found: Groups, name: str, part: LayerCall, width: float) -> dict[str, Any]:
    """What is otherwise in the layer's config."""
    kind, gives = type(part.operation).__name__, found.gives[name]
    if found.root(gives.group) in found.fixed:
        return {}
    count = found.kept(gives.group, width)
    if kind in _MAKES:
        return {_MAKES[kind]: count}
    if kind == "Reshape":
        return {"target_shape": (*part.operation.target_shape[:-1], count * gives.times)}
    return {}


def chosen(found: Groups, weights: Mapping[str, list[np.ndarray]], width: float) -> dict[int, np.ndarray]:
    """{group: the channels that stay, in order}: those whose kernels have the largest sums of absolute values (section 3.1 of the paper),
    each layer's relative to their mean, summed over the layers that make the group."""
    kept = dict[int, np.ndarray]()
    for group in {found.root(one.group) for one in found.gives.values()} - found.fixed:
        norms = [
            np.abs(weights[maker][0]).reshape(-1, found.sizes[group]).sum(axis=0, dtype=np.float64)
            for maker in found.makers[group]
        ]
        score = np.sum([norm / max(norm.mean(), 1e-30) for norm in norms], axis=0)
        order = np.argsort(-score, kind="stable")
        kept[group] = np.sort(order[: found.kept(group, width)])
    return kept


def narrowed(
    trunk: Trunk, weights: Mapping[str, list[np.ndarray]], width: float
) -> tuple[dict[str, list[np.ndarray]], np.ndarray | None]:
    """The trunk's arrays for `build`, and the places on the features' last axis that stay; None: all of them."""
    found = groups(trunk)
    kept = chosen(found, weights, width)

    def places(channels: Channels | None) -> np.ndarray | None:
        root = None if channels is None else found.root(channels.group)
        if channels is None or root not in kept:
            return None
        return _over(kept[root], found.sizes[root], channels.times)

    made = dict[str, list[np.ndarray]]()
    for name in (name for name in weights if name in trunk.parts):
        (first, *others), kind = weights[name], type(trunk.parts[name].operation).__name__
        reads, gives = places(found.reads.get(name)), places(found.gives[name])
        if kind in _MAKES:
            first = taken(first, -2, reads)
        axis = -2 if kind.startswith("Depthwise") else -1
        made[name] = [taken(first, axis, gives), *(taken(array, -1, gives) for array in others)]
    return made, places(found.gives[trunk.trace.features])


def taken(array: np.ndarray, axis: int, places: np.ndarray | None, of: int | None = None) -> np.ndarray:
    """The `places` of an axis; None: all. `of`: how long the axis is over and over again, for an array that reads maps made flat."""
    if places is None:
        return array
    return np.take(array, places if of is None else _over(places, of, array.shape[axis] // of), axis=axis)


def _over(places: np.ndarray, size: int, times: int) -> np.ndarray:
    return np.asarray((np.arange(times)[:, None] * size + places).ravel())


def _last(shape: Sequence[int]) -> int:
    return int(shape[-1]) if len(shape) else 1
