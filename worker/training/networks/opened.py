"""A functional model laid open: each of its layers, where its inputs come from, and how it is made again, under any name.

Nested models are replaced by their layers, so that each of these stands in the trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import keras

from app.spec.trace import INPUT, Trace, TracedLayer

if TYPE_CHECKING:
    from worker.training.sharing import Node

Step = Callable[[Sequence[Any]], Any]
"""From a node's input tensors, in order, to its output."""


@dataclass(frozen=True)
class LayerOutput:
    """A tensor: output `number` of a layer."""

    layer: str
    number: int


@dataclass(frozen=True)
class LayerCall:
    """A call of a layer or op of a trunk: `arguments` hold symbolic tensors, `sources` {a tensor's id: where it comes from}; `shape`: of
    its first output, with the batch. `same_as`: the name of the first call of the same layer; None: this is it."""

    operation: Any
    arguments: tuple[Sequence[Any], Mapping[str, Any]]
    sources: Mapping[int, LayerOutput]
    shape: Sequence[int | None]
    same_as: str | None

    def made(self, name: str, changes: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """Another one like it but for `changes` of its config, with variables of its own once it is called."""
        config = {**_unbuilt(self.operation.get_config()), **changes, "name": name}
        if config.get("seed", 0) is None:
            config["seed"] = 0  # its stream is set at the beginning of each fit
        return type(self.operation).from_config(config)

    def call(self, operation: Any, given: Mapping[str, Any]) -> Any:
        """The output of `operation`, `given` the outputs {layer: output} of the layers that feed this one."""

        def substitute(value: Any) -> Any:
            source = self.sources.get(id(value))
            if source is None:
                return value
            output = given[source.layer]
            return output[source.number] if isinstance(output, list | tuple) else output

        args, kwargs = keras.tree.map_structure(substitute, self.arguments)
        return operation(*args, **kwargs)


def _unbuilt(config: Any) -> Any:
    """A config whose inner layers are built at their first call: built before, the paths of their variables would lack the outer layer."""
    if isinstance(config, dict):
        return {key: _unbuilt(value) for key, value in config.items() if key != "build_config"}
    return type(config)(map(_unbuilt, config)) if type(config) in (list, tuple) else config


@dataclass(frozen=True)
class Trunk:
    """`trace`: its layers as data; `parts`: how each of its layers is made and called."""

    trace: Trace
    parts: Mapping[str, LayerCall]

    def step(self, node: Node, made: Mapping[str, Any]) -> tuple[Any, Step]:
        """The layer of a node that copies one of the trunk's, and how it is called. `made`: the layers and ops of the nodes before it."""
        assert node.origin is not None
        part, after = self.parts[node.origin], self.trace.by_name[node.origin].after
        operation = part.made(node.name) if node.same_as is None else made[node.same_as]
        return operation, lambda given: part.call(operation, dict(zip(after, given, strict=True)))


def lay_open(model: Any, named: frozenset[str] = frozenset()) -> Trunk:
    """A functional model laid open: nested models are replaced by their layers. `named`: names of its layers that stay as they are.

    Raises:
        ValueError: the shape of a layer's output is not known.
    """
    parts: dict[str, LayerCall] = {}
    layers: list[TracedLayer] = []
    (given,) = model.inputs
    shape = tuple(given.shape[1:])
    for name, drawn_as, within, part in _walk(model, "", "", None, {id(given): LayerOutput(INPUT, 0)}, named):
        after = list(dict.fromkeys(source.layer for source in part.sources.values()))
        left = [side for side in part.shape[1:] if side is not None]
        if len(left) < len(part.shape[1:]):
            raise ValueError(f"the layer {name} gives {list(part.shape[1:])}: every side must be known")
        variables = getattr(part.operation, "weights", ()) if part.same_as is None else ()
        numbers = [tuple(variable.shape) for variable in variables]
        layers.append(
            TracedLayer(
                name=name,
                kind=type(part.operation).__name__,
                shape=left,
                parameters=sum(prod(sides) for sides in numbers),
                after=after,
                kernel=any(len(sides) > 1 for sides in numbers),
                adaptable=part.same_as is None and bool(adaptable(part.operation)),
                within=within,
                drawn_as=drawn_as,
                same_as=part.same_as,
            )
        )
        parts[name] = part
    return Trunk(Trace(input=list(shape), layers=layers), parts)


def inner(layer: Any) -> list[Any]:
    """A layer and the layers within it, which attention has."""
    return [layer, *layer._flatten_layers(include_self=False, recursive=True)] if hasattr(layer, "weights") else []


def has_windows(operations: Iterable[Any]) -> bool:
    """Whether a layer or op moves a window over its input: convolution and pooling, but for that of a whole input."""
    kinds = (type(part).__name__ for operation in operations for part in (operation, *inner(operation)))
    return any(("Conv" in kind or "Pool" in kind) and "Global" not in kind for kind in kinds)


def parts(layer: Any) -> list[tuple[str, Any]]:
    """A layer, named "", and the layers within it by names that are the same in every process."""
    own, *within = inner(layer)
    return [("", own), *zip(_names(within), within, strict=True)]


def adaptable(layer: Any) -> list[Any]:
    """The layers in a layer beside whose kernels Keras can put an adapter. A kernel that its layer sets anew in each step takes none."""
    if isinstance(layer, keras.layers.SpectralNormalization):
        return []
    return [part for part in inner(layer) if hasattr(part, "enable_lora") and getattr(part, "kernel", None) is not None]


def leaves(model: Any) -> dict[str, tuple[str, Any]]:
    """{name in a trace: (the name that it is drawn by, layer)} of a nested model's layers, in order."""
    given = {id(tensor): LayerOutput(INPUT, 0) for tensor in model.inputs}
    walked = _walk(model, f"{model.name}-", model.name, model.name, given)
    return {name: (drawn_as, part.operation) for name, drawn_as, _, part in walked}


def _walk(
    model: Any,
    prefix: str,
    drawn_by: str,
    within: str | None,
    outputs: dict[int, LayerOutput],
    named: frozenset[str] = frozenset(),
    first: dict[int, tuple[str, str]] | None = None,
) -> Iterator[tuple[str, str, str | None, LayerCall]]:
    """(name, the name that it is drawn by, the outermost nested model, part) of each call of a layer, in order.

    Args:
        outputs: where each tensor comes from, by its id.
        named: names of layers that stay as they are.
        first: of the calls before, {a layer's id: (name, the name that it is drawn by) of its first one}.
    """
    first = {} if first is None else first
    places = {id(layer): place for place, layer in enumerate(model.layers)}
    names = dict(zip(map(id, model.operations), _names(model.operations, named), strict=True))
    taken, called = set(names.values()), set[int]()
    for node in _calls(model):
        operation, own = node.operation, names[id(node.operation)]
        drawn_as = f"{drawn_by}/{places.get(id(operation), own)}" if drawn_by else prefix + own
        if id(operation) in called:
            own = _next(own, taken)
        called.add(id(operation))
        name = prefix + own
        if isinstance(operation, keras.Model):
            nested = operation._functional if isinstance(operation, keras.Sequential) else operation
            for mine, theirs in zip(nested.inputs, node.input_tensors, strict=True):
                outputs[id(mine)] = outputs[id(theirs)]
            yield from _walk(nested, f"{name}-", drawn_as, within or name, outputs, named, first)
            for mine, theirs in zip(node.output_tensors, nested.outputs, strict=True):
                outputs[id(mine)] = outputs[id(theirs)]
            continue
        arguments, before = node.arguments, first.setdefault(id(operation), (name, drawn_as))
        sources = {id(tensor): outputs[id(tensor)] for tensor in node.input_tensors}
        for number, tensor in enumerate(node.output_tensors):
            outputs[id(tensor)] = LayerOutput(name, number)
        same_as = None if before[0] == name else before[0]
        part = LayerCall(operation, (arguments.args, arguments.kwargs), sources, node.output_tensors[0].shape, same_as)
        yield name, before[1], within, part


def _calls(model: Any) -> list[Any]:
    """The nodes of a model's graph in an order in which they can be computed: that of its layers, where each is called once."""
    places = {id(operation): place for place, operation in enumerate(model.operations)}
    deepest = sorted(model._nodes_by_depth, reverse=True)
    return [
        node
        for depth in deepest
        for node in sorted(model._nodes_by_depth[depth], key=lambda node: places.get(id(node.operation), -1))
        if not isinstance(node.operation, keras.layers.InputLayer)
    ]


def _next(name: str, taken: set[str]) -> str:
    """The name of a further call."""
    number = 2
    while f"{name}-call{number}" in taken:
        number += 1
    taken.add(f"{name}-call{number}")
    return f"{name}-call{number}"


def _names(operations: Sequence[Any], named: frozenset[str] = frozenset()) -> list[str]:
    """A name for each operation, the same in every process: its own; or, where Keras numbered it by a counter of the process, its name
    if these operations were the process's first. Names in `named` are the operations' own."""
    kinds = [snake_case(type(operation).__name__) for operation in operations]
    counted = [
        operation.name not in named and re.fullmatch(rf"{kind}(_\d+)?", operation.name)
        for kind, operation in zip(kinds, operations, strict=True)
    ]
    taken = {operation.name for operation, by_counter in zip(operations, counted, strict=True) if not by_counter}
    names, counts = list[str](), dict[str, int]()
    for operation, kind, by_counter in zip(operations, kinds, counted, strict=True):
        name = None if by_counter else str(operation.name)
        while name is None:
            number = counts[kind] = counts.get(kind, -1) + 1
            candidate = f"{kind}_{number}" if number else kind
            name = None if candidate in taken else candidate
        names.append(name)
    return names


def snake_case(name: str) -> str:
    """The default name that Keras gives layers of a class."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()
