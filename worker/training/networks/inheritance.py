"""One network's numbers copied to another, layer by layer, wherever names and shapes agree; with a report of the copied layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.spec import tasks
from app.spec.architectures.pruned import Spec as Pruned
from worker.training.data import inputs

if TYPE_CHECKING:
    from app.spec.architectures import Architecture
    from worker.training.networks.network import Network, Weights
    from worker.training.tasks.heads import Task


@dataclass(frozen=True)
class Inherited:
    """`copied`: {layer: the source's layer}; `fresh`: layers with numbers that were not copied, each with the reason."""

    network: Network
    copied: dict[str, str]
    fresh: dict[str, str]

    def as_data(self) -> dict[str, object]:
        return {"copied": self.copied, "fresh": self.fresh}


def inherit(network: Network, source: Network) -> Inherited:
    """`network` with every trunk layer of `source` that fits, and each head whose task means the same.

    Scaling comes along with a table's columns, and a tokenizer with the numbers of its tokens; pictures are divided by the scale of their
    own data.

    All arrays of a layer are copied or none. A layer is found by its name, or by its name within a nested model; else, among the
    layers whose names the other side does not have, by order and kind. A head is copied only where the task's classes are the same names
    (its outputs are put in this network's order) or, for regression, the column is; a regression head then also takes over the source's
    units.
    """
    kinds, theirs = ({layer.name: layer.kind for layer in model.trace.layers} for model in (network, source))
    own_names = {layer.name: layer.own_name for layer in network.trace.layers}
    sought = {*kinds, *own_names.values()}
    strangers = [name for name in theirs if name not in sought and name in source.weights]
    weights, copied, fresh = dict(network.weights), {}, {}
    for name in (name for name in network.trunk if name in network.weights):
        names = (name, own_names.get(name, name))
        match = next((own for own in names if own in source.weights and own in theirs), None)
        if match is None and name not in theirs:
            match = next(
                (
                    stranger
                    for stranger in strangers
                    if theirs[stranger] == kinds[name] and _same(weights[name], source.weights[stranger])
                ),
                None,
            )
            strangers = strangers[strangers.index(match) + 1 :] if match else strangers
        if match is None:
            fresh[name] = "the source has no such layer"
        elif not _same(weights[name], source.weights[match]):
            fresh[name] = (
                f"shapes differ: {_shapes(weights[name])} here, {_shapes(source.weights[match])} in the source"
            )
        else:
            weights[name], copied[name] = list(source.weights[match]), match
    tasks = dict(network.tasks)
    for name, task in network.tasks.items():
        tasks[name] = _head(name, task, network, source, weights, copied, fresh)
    scaling = inputs.inherited(network.scaling, network.input, source.scaling, source.input, copied)
    return Inherited(replace(network, weights=weights, tasks=tasks, scaling=scaling), copied, fresh)


def narrower(source: Network, architecture: Architecture) -> Network:
    """`source` with the channels alone that `architecture`, made of its network, keeps of it; itself for any other architecture."""
    if not isinstance(architecture, Pruned) or architecture.of != source.architecture:
        return source
    from worker.training.networks import channels, trunk  # with Keras, which a spec is resolved without

    whole = trunk.trunk(source.architecture, source.trunk_shape)
    weights, features = channels.narrowed(whole, source.weights, architecture.width)
    for layers in source.head_layers.values() if features is not None else ():
        for layer in layers[:1]:
            kernel, *bias = source.weights[layer]
            weights[layer] = [channels.taken(kernel, -2, features, whole.trace.features_shape[-1]), *bias]
    return replace(source, architecture=architecture, weights={**source.weights, **weights})


def order_of(task: Task, source: Task) -> list[int] | None:
    """The place of each output of `task` among the source's outputs; None where the two tasks do not mean the same."""
    if task.type != source.type or task.units != source.units:
        return None
    return tasks.of(task.type).order(task, source)


def _head(
    name: str,
    task: Task,
    network: Network,
    source: Network,
    weights: Weights,
    copied: dict[str, str],
    fresh: dict[str, str],
) -> Task:
    own = network.head_layers[name]
    orders: Mapping[str, list[int] | None] = {other: order_of(task, theirs) for other, theirs in source.tasks.items()}
    twin = next((other for other, order in orders.items() if order is not None), None)
    if twin is None:
        fresh |= dict.fromkeys(own, "no head of the source has the same classes")
        return task
    order, theirs = orders[twin], source.head_layers[twin]
    offered = [list(source.weights[layer]) for layer in theirs]
    offered[-1] = [array[..., order] for array in offered[-1]]
    if len(own) != len(theirs) or not all(
        _same(weights[layer], arrays) for layer, arrays in zip(own, offered, strict=True)
    ):
        fresh |= dict.fromkeys(own, "the source's head has other shapes")
        return task
    for layer, other, arrays in zip(own, theirs, offered, strict=True):
        weights[layer], copied[layer] = arrays, other
    return replace(task, mean=source.tasks[twin].mean, std=source.tasks[twin].std)


def _same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return [array.shape for array in ours] == [array.shape for array in theirs]


def _shapes(arrays: list[np.ndarray]) -> str:
    return ", ".join("×".join(str(side) for side in array.shape) or "scalar" for array in arrays)
