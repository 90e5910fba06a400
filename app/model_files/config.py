"""A Keras 3 config (functional, Sequential, nested) as a graph of stock layers, all of it plain data.

Nested models become part of the one graph: their layers are called NESTED-LAYER, and a nested model that is called twice has its layers
called twice. What cannot be taken over is said layer by layer, all of it at once. No name in the config is looked up anywhere but in
`app.spec.stock_layers`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.model_files._arguments import Of, filled, plain_arguments
from app.model_files._layer_config import Beside, Plain, Reader
from app.model_files._names import Names, snake_case
from app.spec import stock_layers
from app.spec.faults import Fault, Invalid, pointer

MOST_LAYERS = 2000
DEEPEST = 16
"""Models within models."""

LARGEST_SIDE = 2**24
MODELS = {
    "Functional": ("keras.src.models.functional", "keras.models", "keras"),
    "Sequential": ("keras", "keras.models"),
    "Model": ("keras", "keras.models"),
}
KERAS_2 = "open it in Keras 3 and save it as .keras"
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
FLOATS = ("float32", "float64", "float16", "bfloat16")

Tensor = dict[str, Any]
"""{"tensor": NAME}, of a call that gives several with "output"."""


@dataclass(frozen=True)
class Place:
    """Where a file of weights keeps a layer's arrays. `stored`: the layer's name there."""

    layer: str
    kind: str
    config: dict[str, Any]
    path: str
    stored: str


@dataclass
class Walked:
    """`graph`: as `app.spec.architectures.keras_graph` wants it, but for `kind`. `outputs`: the model's own, by name."""

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
        sides: the shape of a row by input, for inputs whose config leaves sides open.
        beside: see `Beside`.

    Raises:
        Invalid: with every fault, pointers into `config`; of sides left open below /inputs.
    """
    return _Walk(dict(sides or {}), beside).whole(config)


@dataclass
class _Layer:
    name: str
    at: str
    stored: str
    path: str = ""
    plain: Plain | None = None
    model: _Model | None = None
    given: dict[str, Any] | None = None  # an input's config
    nodes: list[tuple[list[Any], dict[str, Any]]] = field(default_factory=list)


@dataclass
class _Model:
    """`layers` by the names in the config. `inputs` and `outputs`: (name in a dict, layer, node, output)."""

    at: str
    layers: dict[str, _Layer]
    inputs: list[tuple[str | None, Of]]
    outputs: list[tuple[str | None, Of]]
    functional: bool = True


class _Walk:
    def __init__(self, sides: dict[str, Sequence[int]], beside: Beside):
        self.reader = Reader(beside)
        self.sides = sides
        self.names = Names()
        self.layers: dict[str, dict[str, Any]] = {}
        self.calls: list[dict[str, Any]] = []
        self.places: list[Place] = []
        self.work = 0

    def whole(self, config: Any) -> Walked:
        model = self.model(config, "", "", "", 0)
        self._raise()
        if model is None:
            raise Invalid([Fault("", "no model", KERAS_2)])
        given, tensors = self.given(model)
        self._raise()
        results = self.instance(model, tensors)
        self._raise()
        outputs = self.outputs(model, results)
        self._raise()
        return self.walked(given, outputs)

    def _raise(self) -> None:
        if self.reader.faults:
            raise Invalid(self.reader.faults)

    def _count(self) -> None:
        """Bounds what a small config may unfold into."""
        self.work += 1
        if self.work > 4 * MOST_LAYERS or len(self.calls) > MOST_LAYERS:
            raise Invalid(
                [Fault("", f"more than {MOST_LAYERS} layers or calls of layers", "cut the model down", "too_large")]
            )

    # What the config says

    def model(self, entry: Any, at: str, prefix: str, path: str, deep: int) -> _Model | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            self.reader.fault(at, "expected the config of a Keras 3 model", KERAS_2)
            return None
        name, module, config = entry["class_name"], entry.get("module"), entry.get("config")
        if module is None and name in MODELS:
            self.reader.fault(at, "a config of Keras 2", KERAS_2, "keras_2")
            return None
        if name not in MODELS or module not in MODELS[name] or entry.get("registered_name") not in (None, name):
            hint = "build it as a functional or Sequential model of Keras's own layers"
            self.reader.fault(at, "a model of a class of its own", hint, "custom_model")
            return None
        if deep > DEEPEST:
            self.reader.fault(at, f"models within models, more than {DEEPEST} deep", "flatten the model")
            return None
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            self.reader.fault(at + "/config", "expected the layers of a model", KERAS_2)
            return None
        if "input_layers" not in config and name == "Sequential":
            return self._sequential(config, at + "/config", prefix, path, deep)
        return self._functional(config, at + "/config", prefix, path, deep)

    def _entries(
        self, config: dict[str, Any], at: str, prefix: str, path: str, deep: int, *, functional: bool
    ) -> dict[str, _Layer]:
        layers, used = dict[str, _Layer](), dict[str, int]()
        for place, entry in enumerate(config["layers"]):
            self._count()
            here = f"{at}/layers/{place}"
            inner = entry.get("config") if isinstance(entry, dict) else None
            name = inner.get("name") if isinstance(inner, dict) else None
            if functional and isinstance(entry, dict):
                name = entry.get("name", name)
            if not isinstance(name, str) or name in layers:
                self.reader.fault(here, "each layer needs a name of its own", "save the model again with Keras 3")
                continue
            layer = _Layer("", here, name)
            layers[name] = layer
            self._entry(layer, entry, prefix, path, used, deep, in_container=functional)
        return layers

    def _entry(
        self,
        layer: _Layer,
        entry: dict[str, Any],
        prefix: str,
        path: str,
        used: dict[str, int],
        deep: int,
        *,
        in_container: bool,
    ) -> None:
        kind = entry.get("class_name")
        if kind == "InputLayer":
            if entry.get("module") not in ("keras.layers", "keras") or entry.get("registered_name") not in (None, kind):
                self.reader.fault(layer.at, "a class of your own", "begin the model with keras.Input", "custom_layer")
            layer.given = entry["config"]
            layer.name = layer.stored
            if in_container:
                self._path("InputLayer", path, used)
            return
        layer.name = self.names.new(prefix + layer.stored, str(kind) if isinstance(kind, str) else "layer")
        if isinstance(kind, str) and kind in MODELS:
            layer.path = self._path("Functional" if kind == "Model" else kind, path, used)
            layer.model = self.model(entry, layer.at, layer.name + "-", layer.path + "/", deep + 1)
            return
        is_operation = isinstance(entry.get("module"), str) and entry["module"].startswith("keras.src.ops.")
        layer.path = "" if is_operation or not isinstance(kind, str) else self._path(kind, path, used)
        layer.plain = self.reader.plain(entry, layer.at, layer.name, layer.path)

    def _path(self, kind: str, path: str, used: dict[str, int]) -> str:
        """The place of a container's next layer of a class: Keras counts the layers of each class."""
        name = snake_case(kind)
        number = used.get(name, -1) + 1
        used[name] = number
        return f"{path}layers/{name}" + (f"_{number}" if number else "")

    def _sequential(self, config: dict[str, Any], at: str, prefix: str, path: str, deep: int) -> _Model:
        layers = self._entries(config, at, prefix, path, deep, functional=False)
        first = next(iter(layers.values()), None)
        if first is None or first.given is None:
            shape = config.get("build_input_shape")
            layers = {"": _Layer("input", at, "input", given={"batch_shape": shape, "dtype": "float32"}), **layers}
        names = list(layers)
        for before, layer in zip(names, list(layers.values())[1:], strict=False):
            layer.nodes.append(([Of(before, 0, 0)], {}))
            if layer.given is not None:
                self.reader.fault(
                    layer.at, "an input in the middle of a Sequential model", "save the model again with Keras 3"
                )
        return _Model(at, layers, [(None, Of(names[0], 0, 0))], [(None, Of(names[-1], 0, 0))], functional=False)

    def _functional(self, config: dict[str, Any], at: str, prefix: str, path: str, deep: int) -> _Model:
        layers = self._entries(config, at, prefix, path, deep, functional=True)
        for place, entry in enumerate(config["layers"]):
            layer = (
                layers.get(entry.get("name"))
                if isinstance(entry, dict) and isinstance(entry.get("name"), str)
                else None
            )
            if layer is None or layer.at != f"{at}/layers/{place}":
                continue
            nodes = entry.get("inbound_nodes")
            if not isinstance(nodes, list) or len(nodes) > MOST_LAYERS or (layer.given is not None and nodes):
                self.reader.fault(layer.at + "/inbound_nodes", "expected a list of calls", KERAS_2)
                continue
            for number, node in enumerate(nodes):
                self._count()
                where = f"{layer.at}/inbound_nodes/{number}"
                layer.nodes.append(
                    plain_arguments(node, where, layer.name, self.reader, of_model=layer.model is not None)
                )
        models = {name for name, layer in layers.items() if layer.model is not None and layer.model.functional}
        sides = []
        for key in ("input_layers", "output_layers"):
            found = list(_references(config.get(key), models))
            if not found or any(of is None or of.layer not in layers for _, of in found):
                self.reader.fault(f"{at}/{key}", "expected layers of this model", KERAS_2)
                found = []
            sides.append([(name, of) for name, of in found if of is not None])
        return _Model(at, layers, *sides)

    # What comes of it

    def given(self, model: _Model) -> tuple[list[dict[str, Any]], list[Tensor]]:
        given = []
        for key, of in model.inputs:
            layer = model.layers[of.layer]
            if layer.given is None:
                self.reader.fault(layer.at, "a model must begin with its inputs", "begin it with keras.Input")
                continue
            name = self.names.new(key or layer.name, "input")
            given.append({"name": name, **self._shape(name, layer)})
        return given, [{"tensor": one["name"]} for one in given]

    def _shape(self, name: str, layer: _Layer) -> dict[str, Any]:
        config, at = layer.given or {}, layer.at + "/config"
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
        batch = config.get("batch_shape")
        if batch is None and name not in self.sides:
            hint = "build it, with model.build((None, …)), or begin it with keras.Input, and save it again"
            self.reader.fault(at, "the model has no input shape, it was never built", hint, "no_shape")
            return {"shape": []}
        if batch is not None and (
            not isinstance(batch, list) or not 1 <= len(batch) <= 5 or not all(map(_is_side, batch))
        ):
            self.reader.fault(
                at + "/batch_shape", f"input {name!r}: expected at most four sides behind the batch", KERAS_2
            )
            return {"shape": []}
        if batch and batch[0] is not None:
            self.reader.note("the fixed size of a batch is not taken over", name)
        shape = self._sides(name, batch)
        return {"shape": shape, "integers": True} if dtype in INTEGERS else {"shape": shape}

    def _sides(self, name: str, batch: list[int | None] | None) -> list[int]:
        """The sides of a row, as the caller said where the config leaves them open."""
        told = self.sides.get(name)
        open_sides = batch[1:] if batch is not None else None
        if told is not None:
            fits = open_sides is None or (
                len(told) == len(open_sides)
                and all(side in (None, said) for side, said in zip(open_sides, told, strict=True))
            )
            if fits and len(told) <= 4 and all(isinstance(side, int) and 1 <= side <= LARGEST_SIDE for side in told):
                return list(told)
            shown = "any shape" if open_sides is None else f"{open_sides}".replace("None", "any")
            self.reader.fault(
                "/inputs" + pointer(name), f"the model takes {shown}", "give sides that fit it", "shape_differs"
            )
        elif open_sides is not None and None not in open_sides:
            return [side for side in open_sides if side is not None]
        else:
            shown = f"{open_sides}".replace("None", "any")
            self.reader.fault(
                "/inputs" + pointer(name),
                f"the model leaves sides open: {shown}",
                "say the shape of a row",
                "open_sides",
            )
        return []

    def instance(self, model: _Model, tensors: list[Tensor]) -> list[Tensor]:
        """Calls the layers of a model on `tensors`: what it gives."""
        self._count()
        if len(tensors) != len(model.inputs):
            self.reader.fault(model.at, f"a model of {len(model.inputs)} inputs is called with {len(tensors)}", KERAS_2)
            self._raise()
        values: dict[tuple[str, int], list[Tensor] | _Call] = {}
        for (_, of), tensor in zip(model.inputs, tensors, strict=True):
            values[of.layer, 0] = [tensor]
        for name, number in self._in_order(model, {of.layer for _, of in model.inputs}):
            layer = model.layers[name]
            args, kwargs = layer.nodes[number]
            args, kwargs = (
                filled(args, lambda of: self._value(model, values, of)),
                filled(kwargs, lambda of: self._value(model, values, of)),
            )
            if layer.model is not None:
                values[name, number] = self.instance(layer.model, _tensors(layer.model, args))
            elif layer.plain is not None:
                values[name, number] = self._call(layer, args, kwargs)
        return [self._value(model, values, of) for _, of in model.outputs]

    def _in_order(self, model: _Model, inputs: set[str]) -> Iterator[tuple[str, int]]:
        """The calls of a model's layers, each after those whose tensors it takes; otherwise as in the config."""
        nodes = [(name, number) for name, layer in model.layers.items() for number in range(len(layer.nodes))]
        position = {node: place for place, node in enumerate(nodes)}
        waits, followers, done = dict[int, int](), dict[tuple[str, int], list[int]](), 0
        for place, (name, number) in enumerate(nodes):
            sources = {(of.layer, of.node) for of in _sources(model.layers[name].nodes[number])}
            needed = {source for source in sources if source in position}
            if any(source not in position and (source[0] not in inputs or source[1]) for source in sources):
                self.reader.fault(model.layers[name].at, "is called with a tensor that no layer gives", KERAS_2)
            waits[place] = len(needed)
            for source in needed:
                followers.setdefault(source, []).append(place)
        self._raise()
        ready = [place for place, count in waits.items() if not count]
        while ready:
            node = nodes[heapq.heappop(ready)]
            done += 1
            yield node
            for place in followers.get(node, ()):
                waits[place] -= 1
                if not waits[place]:
                    heapq.heappush(ready, place)
        if done < len(nodes):
            self.reader.fault(model.at, "its layers wait for one another in a circle", KERAS_2)
            self._raise()

    def _value(self, model: _Model, values: dict[tuple[str, int], list[Tensor] | _Call], of: Of) -> Tensor:
        value = values.get((of.layer, of.node))
        if isinstance(value, _Call):
            if value.several:
                return {"tensor": value.name, "output": of.output}
            value = [{"tensor": value.name}]
        if value is None or of.output >= len(value):
            self.reader.fault(model.at, "a tensor is used that no layer gives", KERAS_2)
            self._raise()
            raise AssertionError
        return value[of.output]

    def _call(self, layer: _Layer, args: list[Any], kwargs: dict[str, Any]) -> _Call:
        plain = layer.plain
        assert plain is not None
        name = self._one_call(layer.name, plain, args, kwargs, layer.path, layer.stored)
        if plain.after is not None:
            after = layer.name + "-activation"
            name = self._one_call(after, plain.after, [{"tensor": name}], {}, layer.path + "/activation", "")
            return _Call(name, False)
        return _Call(name, stock_layers.gives_several(plain.kind, plain.config, kwargs))

    def _one_call(
        self, layer: str, plain: Plain, args: list[Any], kwargs: dict[str, Any], path: str, stored: str
    ) -> str:
        self._count()
        name = layer
        if layer in self.layers:
            name = self.names.new(layer, "")
        else:
            if layer not in self.names:
                self.names.new(layer, "")
            self.layers[layer] = {"kind": plain.kind, "config": plain.config} if plain.config else {"kind": plain.kind}
            if path:
                self.places.append(Place(layer, plain.kind, plain.config, path, stored))
        call = {"name": name, "layer": layer, "args": args}
        self.calls.append({**call, "kwargs": kwargs} if kwargs else call)
        return name

    def outputs(self, model: _Model, tensors: list[Tensor]) -> list[tuple[str, Tensor]]:
        named = Names()
        return [
            (named.new(key or tensor["tensor"], "output"), tensor)
            for (key, _), tensor in zip(model.outputs, tensors, strict=True)
        ]

    def walked(self, given: list[dict[str, Any]], outputs: list[tuple[str, Tensor]]) -> Walked:
        """Without calls that lead to no output: Keras keeps masks that nobody reads."""
        needed, calls = {tensor["tensor"] for _, tensor in outputs}, list[dict[str, Any]]()
        for call in reversed(self.calls):
            if call["name"] in needed:
                calls.append(call)
                needed |= set(_named(call))
        calls.reverse()
        if outputs[0][1]["tensor"] not in {call["name"] for call in calls}:
            raise Invalid([Fault("", "the model gives back its own input", "send a model with layers")])
        used = {call["layer"] for call in calls}
        graph = {
            "arch": "keras-graph",
            "given": given,
            "layers": {name: layer for name, layer in self.layers.items() if name in used},
            "calls": calls,
            "features": outputs[0][1]["tensor"],
        }
        notes = [_note(message, layers) for message, layers in self.reader.notes.items()]
        return Walked(graph, outputs, notes, [place for place in self.places if place.layer in used])


@dataclass(frozen=True)
class _Call:
    name: str
    several: bool


def _references(value: Any, models: set[str], name: str | None = None) -> Iterator[tuple[str | None, Of | None]]:
    """The tensors of `input_layers` or `output_layers`, as Keras flattens them: a dict by its sorted keys."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        layer, node, output = value
        if type(node) is int and type(output) is int and node >= 0 and output >= 0:
            yield name, Of(layer, node - (layer in models), output)  # a model begins with a call of its own
        else:
            yield name, None
    elif isinstance(value, list):
        for item in value:
            yield from _references(item, models)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _references(value[key], models, key)
    else:
        yield name, None


def _sources(value: Any) -> Iterator[Of]:
    if isinstance(value, Of):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _sources(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _sources(item)


def _tensors(model: _Model, args: Any) -> list[Tensor]:
    """The tensors that a nested model is called with, in the order of its inputs."""
    if isinstance(args, dict) and "tensor" in args:
        return [args]
    if isinstance(args, dict):
        names = [name for name, _ in model.inputs]
        keys = (
            names if all(name in args for name in names) else [model.layers[of.layer].stored for _, of in model.inputs]
        )
        keys = keys if all(key in args for key in keys) else sorted(args)
        return [tensor for key in keys for tensor in _tensors(model, args[key])]
    if isinstance(args, list):
        return [tensor for item in args for tensor in _tensors(model, item)]
    return []


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "tensor" in value:
            yield value["tensor"]
        for item in value.values():
            yield from _named(item)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item)


def _is_side(side: Any) -> bool:
    return side is None or (type(side) is int and 1 <= side <= LARGEST_SIDE)


def _note(message: str, layers: list[str]) -> str:
    shown = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if len(layers) > 5 else "")
    return f"{message} ({shown})"
