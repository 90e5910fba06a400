"""A Keras 3 config (functional, Sequential, nested) as a graph of stock layers, all of it plain data.

Nested models become part of the one graph: their layers are called NESTED-LAYER, and a nested model that is called twice has its layers
called twice. What cannot be taken over is said layer by layer, all of it at once. No name in the config is looked up anywhere but in
`app.spec.stock_layers`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.model_files._arguments import Of, filled
from app.model_files._layer_config import Beside, Plain
from app.model_files._models import AGAIN, KERAS_2, MOST_LAYERS, Layer, Model, ModelReader
from app.model_files._names import Names
from app.spec import stock_layers
from app.spec.faults import Fault, Invalid, pointer

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
FLOATS = ("float32", "float64", "float16", "bfloat16")
MOST_SIDES = 4

Tensor = dict[str, Any]
"""{"tensor": NAME}, of a call that gives several with "output"."""


@dataclass(frozen=True)
class Place:
    """Where a file of weights keeps a layer's arrays. `stored`: the layer's name there; "" where it is not known."""

    layer: str
    kind: str
    config: dict[str, Any]
    path: str
    stored: str


@dataclass(frozen=True)
class Walked:
    """`graph`: as `app.spec.architectures.keras_graph` wants it, but for `kind`. `outputs`: the model's own, by name. `notes`: what of
    the file is not taken over."""

    graph: dict[str, Any]
    outputs: list[tuple[str, Tensor]]
    notes: list[str]
    places: list[Place]


def nothing_beside(path: str) -> dict[str, Any]:  # noqa: ARG001
    return {}


def walk(config: Any, sides: Mapping[str, Sequence[int]] | None = None, beside: Beside = nothing_beside) -> Walked:
    """The graph of a model.

    Args:
        config: a decoded config.json, or what `to_json()` wrote.
        sides: the shape of a row by input, for inputs whose config leaves sides open; or `*2` and the two sides that any input of
            two open ones gets, `*1` and so on.
        beside: see `Beside`.

    Raises:
        Invalid: with every fault, pointers into `config`; of sides left open below /inputs.
    """
    return _Walk(dict(sides or {}), beside).whole(config)


@dataclass(frozen=True)
class _Call:
    """What a call gives. `several`: whether that is more than one tensor."""

    name: str
    several: bool


Values = dict[tuple[str, int], list[Tensor] | _Call]
"""What a model's layers gave, by layer and number of the call: of a nested model the tensors, of a layer the call."""


class _Walk:
    def __init__(self, sides: dict[str, Sequence[int]], beside: Beside):
        self.models = ModelReader(beside)
        self.reader, self.names = self.models.reader, self.models.names
        self.sides = sides
        self.layers: dict[str, dict[str, Any]] = {}
        self.calls: list[dict[str, Any]] = []
        self.places: list[Place] = []

    def whole(self, config: Any) -> Walked:
        model = self.models.model(config)
        self._raise()
        assert model is not None
        given = list(self._given(model))
        self._raise()
        tensors = self._instance(model, [{"tensor": one["name"]} for one in given])
        named = Names()
        outputs = [
            (named.new(key or tensor["tensor"], "output"), tensor)
            for (key, _), tensor in zip(model.outputs, tensors, strict=True)
        ]
        return self._walked(given, outputs)

    def _raise(self) -> None:
        if self.reader.faults:
            raise Invalid(self.reader.faults)

    def _stop(self, at: str, message: str, hint: str = KERAS_2) -> Invalid:
        self.reader.fault(at, message, hint)
        return Invalid(self.reader.faults)

    # Inputs

    def _given(self, model: Model) -> Iterator[dict[str, Any]]:
        for key, of in model.inputs:
            layer = model.layers[of.layer]
            if layer.given is None:
                self.reader.fault(layer.at, "a model must begin with its inputs", "begin it with keras.Input")
                continue
            name = self.names.new(key or layer.name, "input")
            dtype = self._dtype(layer.given, name, layer.at + "/config")
            yield {"name": name, "shape": self._shape(layer.given, name, layer.at + "/config")} | (
                {"integers": True} if dtype in INTEGERS else {}
            )

    def _dtype(self, config: dict[str, Any], name: str, at: str) -> Any:
        dtype = config.get("dtype", "float32")
        if isinstance(dtype, dict):
            inner = dtype.get("config")
            dtype = inner.get("name") if isinstance(inner, dict) else None
        if dtype == "string":
            hint = "take off what works on strings, and let the model begin at its ids"
            self.reader.fault(at + "/dtype", f"input {name!r} takes strings", hint, "strings")
        elif dtype not in (*INTEGERS, *FLOATS):
            self.reader.fault(
                at + "/dtype", f"input {name!r}: expected whole numbers or floats", "cast within the model"
            )
        if config.get("sparse") or config.get("ragged") or config.get("optional"):
            self.reader.fault(at, f"input {name!r} is sparse, ragged or optional", "make it an ordinary input")
        return dtype

    def _shape(self, config: dict[str, Any], name: str, at: str) -> list[int]:
        """The sides of a row, as the caller said where the config leaves them open."""
        batch, told = config.get("batch_shape"), self.sides.get(name)
        if batch is None:
            if told is not None and _is_shape(told):
                return list(told)
            hint = "build it, with model.build((None, …)), or begin it with keras.Input, and save it again"
            self.reader.fault(at, "the model has no input shape, it was never built", hint, "no_shape")
            return []
        if (
            not isinstance(batch, list)
            or not batch
            or not _is_shape([1 if side is None else side for side in batch], MOST_SIDES + 1)
        ):
            self.reader.fault(
                at + "/batch_shape", f"input {name!r}: expected at most {MOST_SIDES} sides behind the batch", AGAIN
            )
            return []
        first, *sides = batch
        if first is not None:
            self.reader.note("the fixed size of a batch is not taken over", name)
        shown = f"{sides}".replace("None", "any")
        if told is None and (filling := self.sides.get(f"*{sides.count(None)}")) is not None:
            left = list(filling)
            told = [left.pop(0) if side is None and left else side for side in sides]
        if told is None and None in sides:
            self.reader.fault(
                "/inputs" + pointer(name),
                f"the model leaves sides open: {shown}",
                "say the shape of a row",
                "open_sides",
            )
        elif told is None:
            return sides
        elif (
            _is_shape(told)
            and len(told) == len(sides)
            and all(side in (None, own) for side, own in zip(sides, told, strict=True))
        ):
            return list(told)
        else:
            self.reader.fault(
                "/inputs" + pointer(name), f"the model takes {shown}", "give sides that fit it", "shape_differs"
            )
        return []

    # Calls

    def _instance(self, model: Model, tensors: list[Tensor]) -> list[Tensor]:
        """Calls the layers of a model on `tensors`: what it gives. Raises Invalid."""
        self.models.count()
        if len(tensors) != len(model.inputs):
            raise self._stop(model.at, f"a model of {len(model.inputs)} inputs is called with {len(tensors)}")
        values: Values = {(of.layer, of.node): [tensor] for (_, of), tensor in zip(model.inputs, tensors, strict=True)}

        def tensor(of: Of) -> Tensor:
            return self._value(model, values, of)

        for name, number in self._in_order(model, set(values)):
            layer = model.layers[name]
            args, kwargs = layer.nodes[number]
            if layer.model is not None:
                values[name, number] = self._instance(layer.model, _tensors(layer.model, filled(args, tensor)))
            elif layer.plain is not None:
                values[name, number] = self._call(layer, layer.plain, filled(args, tensor), filled(kwargs, tensor))
        return [tensor(of) for _, of in model.outputs]

    def _in_order(self, model: Model, given: set[tuple[str, int]]) -> Iterator[tuple[str, int]]:
        """The calls of a model's layers, each after those whose tensors it takes; otherwise as in the config. Raises Invalid."""
        nodes = [(name, number) for name, layer in model.layers.items() for number in range(len(layer.nodes))]
        there, waits = set(nodes), list[int]()
        followers = dict[tuple[str, int], list[int]]()
        for place, (name, number) in enumerate(nodes):
            sources = {(of.layer, of.node) for of in _sources(model.layers[name].nodes[number])}
            if not sources <= there | given:
                raise self._stop(model.layers[name].at, "is called with a tensor that no layer gives")
            waits.append(len(sources & there))
            for source in sources & there:
                followers.setdefault(source, []).append(place)
        ready = [place for place, count in enumerate(waits) if not count]
        done = 0
        while ready:
            node = nodes[heapq.heappop(ready)]
            done += 1
            yield node
            for place in followers.get(node, ()):
                waits[place] -= 1
                if not waits[place]:
                    heapq.heappush(ready, place)
        if done < len(nodes):
            raise self._stop(model.at, "its layers wait for one another in a circle")

    def _value(self, model: Model, values: Values, of: Of) -> Tensor:
        value = values.get((of.layer, of.node), [])
        if isinstance(value, _Call):
            if value.several:
                return {"tensor": value.name, "output": of.output}
            value = [{"tensor": value.name}]
        if of.output >= len(value):
            raise self._stop(model.at, "a tensor is used that no layer gives")
        return value[of.output]

    def _call(self, layer: Layer, plain: Plain, args: list[Any], kwargs: dict[str, Any]) -> _Call:
        name = self._one_call(layer.name, plain, args, kwargs, layer.path, layer.stored)
        if plain.after is None:
            return _Call(name, stock_layers.gives_several(plain.kind, plain.config, kwargs))
        after = layer.name + "-activation"
        return _Call(
            self._one_call(after, plain.after, [{"tensor": name}], {}, layer.path + "/activation", ""), several=False
        )

    def _one_call(
        self, layer: str, plain: Plain, args: list[Any], kwargs: dict[str, Any], path: str, stored: str
    ) -> str:
        """The name of a call of `layer`; the first has the layer's own. Raises Invalid: there are too many."""
        self.models.count()
        if len(self.calls) >= MOST_LAYERS:
            raise Invalid([Fault("", f"more than {MOST_LAYERS} calls of layers", "cut the model down", "too_large")])
        name = layer
        if layer in self.layers:
            name = self.names.new(layer, "call")
        else:
            if layer not in self.names:
                self.names.new(layer, "layer")
            self.layers[layer] = plain.as_data()
            if path:
                within = plain.stored or plain
                self.places.append(Place(layer, within.kind, within.config, path, stored))
        call = {"name": name, "layer": layer, "args": args}
        self.calls.append({**call, "kwargs": kwargs} if kwargs else call)
        return name

    def _walked(self, given: list[dict[str, Any]], outputs: list[tuple[str, Tensor]]) -> Walked:
        """Without calls that lead to no output: Keras keeps masks that nobody reads. Raises Invalid."""
        needed, calls = {tensor["tensor"] for _, tensor in outputs}, list[dict[str, Any]]()
        for call in reversed(self.calls):
            if call["name"] in needed:
                calls.append(call)
                needed |= {tensor["tensor"] for tensor in stock_layers.tensors([call["args"], call.get("kwargs", {})])}
        calls.reverse()
        features = outputs[0][1]["tensor"]
        if features not in {call["name"] for call in calls}:
            raise Invalid([Fault("", "the model gives back its own input", "send a model with layers")])
        used = {call["layer"] for call in calls}
        graph = {
            "arch": "keras-graph",
            "given": given,
            "layers": {name: layer for name, layer in self.layers.items() if name in used},
            "calls": calls,
            "features": features,
        }
        return Walked(graph, outputs, self.reader.told(), [place for place in self.places if place.layer in used])


def _sources(value: Any) -> Iterator[Of]:
    if isinstance(value, Of):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _sources(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _sources(item)


def _tensors(model: Model, args: Any) -> list[Tensor]:
    """The tensors that a nested model is called with, in the order of its inputs."""
    if isinstance(args, dict) and "tensor" in args:
        return [args]
    if isinstance(args, dict):
        keys = [name for name, _ in model.inputs if name is not None]
        if len(keys) < len(model.inputs):
            keys = [model.layers[of.layer].stored for _, of in model.inputs]
        keys = keys if all(key in args for key in keys) else sorted(args)
        return [tensor for key in keys for tensor in _tensors(model, args[key])]
    if isinstance(args, list):
        return [tensor for item in args for tensor in _tensors(model, item)]
    return []


def _is_shape(sides: Sequence[Any], most: int = MOST_SIDES) -> bool:
    return len(sides) <= most and all(type(side) is int and 1 <= side <= stock_layers.LARGEST for side in sides)
