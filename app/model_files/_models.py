"""A Keras 3 config read as models of layers, each layer in its plain form. Nothing is called yet: `app.model_files.config` does that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from app.model_files._arguments import Of, plain_arguments
from app.model_files._layer_config import Beside, Plain, Reader, Spot
from app.model_files._names import Names, snake_case
from app.spec import stock_layers
from app.spec.faults import Fault, Invalid

MOST_LAYERS = 2000
DEEPEST = 16
"""Models within models."""

KERAS_2 = "open it in Keras 3 and save it as .keras"
AGAIN = "save the model again with Keras 3"
MODELS = {
    "Functional": ("keras.src.models.functional", "keras.models", "keras"),
    "Sequential": ("keras", "keras.models"),
    "Model": ("keras", "keras.models"),
}
PLACE_BY_PLACE = frozenset(["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
"""Layers of several tensors that do the same whether or not time is one of the axes."""


@dataclass
class Layer:
    """`name`: in the graph; `stored`: in the config. It is an input (`given`: its config), a model, or a layer of its own (`plain`).
    `path`: where a file keeps its numbers. `nodes`: the arguments of each of its calls."""

    name: str
    stored: str
    at: str
    path: str = ""
    given: dict[str, Any] | None = None
    model: Model | None = None
    plain: Plain | None = None
    nodes: list[tuple[list[Any], dict[str, Any]]] = field(default_factory=list)


@dataclass
class Model:
    """`layers` by their names in the config. `inputs`, `outputs`: tensors, with their key where they are a dict's. `functional`: whether
    Keras counts a call of its own before the first."""

    at: str
    layers: dict[str, Layer]
    inputs: list[tuple[str | None, Of]]
    outputs: list[tuple[str | None, Of]]
    functional: bool


class ModelReader:
    """Reads models and names their layers. What is wrong with them stands in `reader.faults`."""

    def __init__(self, beside: Beside) -> None:
        self.reader = Reader(beside)
        self.names = Names()
        self._work = 0

    def count(self) -> None:
        """Bounds what a config may unfold into. Raises Invalid."""
        self._work += 1
        if self._work > 8 * MOST_LAYERS:
            raise Invalid(
                [Fault("", f"more than {MOST_LAYERS} layers or calls of layers", "cut the model down", "too_large")]
            )

    def model(self, entry: Any, at: str = "", prefix: str = "", path: str = "", deep: int = 0) -> Model | None:
        """The model that `entry` describes, and None where it is none, with the faults said.

        Args:
            at: a pointer to it.
            prefix: of its layers' names in the graph.
            path: of what a file keeps of it.
            deep: how many models it is within.
        """
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            self.reader.fault(at, "expected the config of a Keras 3 model", KERAS_2)
            return None
        name, module, config = entry["class_name"], entry.get("module"), entry.get("config")
        if module is None and name in MODELS:
            self.reader.fault(at, "a config of Keras 2", KERAS_2, "keras_2")
        elif name not in MODELS or module not in MODELS[name] or entry.get("registered_name") not in (None, name):
            hint = "build it as a functional or Sequential model of Keras's own layers"
            self.reader.fault(at, "a model of a class of its own", hint, "custom_model")
        elif deep > DEEPEST:
            self.reader.fault(at, f"models within models, more than {DEEPEST} deep", "flatten the model")
        elif not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            self.reader.fault(at + "/config", "expected the layers of a model", KERAS_2)
        elif "input_layers" not in config and name == "Sequential":
            return self._sequential(config, at + "/config", prefix, path, deep)
        else:
            return self._functional(config, at + "/config", prefix, path, deep, functional=name != "Sequential")
        return None

    def _sequential(self, config: dict[str, Any], at: str, prefix: str, path: str, deep: int) -> Model:
        layers = self._layers(config["layers"], at, prefix, path, deep, functional=False)
        first = next(iter(layers.values()), None)
        if first is None or first.given is None:
            shape = config.get("build_input_shape")
            layers = {"": Layer("input", "input", at, given={"batch_shape": shape, "dtype": "float32"}), **layers}
        names = list(layers)
        for before, name in pairwise(names):
            layers[name].nodes.append(([Of(before, 0, 0)], {}))
            if layers[name].given is not None:
                self.reader.fault(layers[name].at, "an input in the middle of a Sequential model", AGAIN)
        return Model(at, layers, [(None, Of(names[0], 0, 0))], [(None, Of(names[-1], 0, 0))], functional=False)

    def _functional(
        self, config: dict[str, Any], at: str, prefix: str, path: str, deep: int, *, functional: bool
    ) -> Model:
        layers = self._layers(config["layers"], at, prefix, path, deep, functional=True)
        entries = {f"{at}/layers/{place}": entry for place, entry in enumerate(config["layers"])}
        for layer in layers.values():
            self._nodes(layer, entries[layer.at].get("inbound_nodes"))
        counted = {name for name, layer in layers.items() if layer.model is not None and layer.model.functional}
        inputs = self._ends(config.get("input_layers"), f"{at}/input_layers", layers, counted)
        outputs = self._ends(config.get("output_layers"), f"{at}/output_layers", layers, counted)
        return Model(at, layers, inputs, outputs, functional)

    def _layers(
        self, entries: list[Any], at: str, prefix: str, path: str, deep: int, *, functional: bool
    ) -> dict[str, Layer]:
        layers, used = dict[str, Layer](), dict[str, int]()
        for place, entry in enumerate(entries):
            self.count()
            here = f"{at}/layers/{place}"
            config = entry.get("config") if isinstance(entry, dict) else None
            name = config.get("name") if isinstance(config, dict) else None
            if functional and isinstance(entry, dict):
                name = entry.get("name", name)
            if not isinstance(config, dict) or not isinstance(name, str) or name in layers:
                self.reader.fault(here, "each layer needs a config, and a name of its own", AGAIN)
                continue
            layers[name] = Layer("", name, here)
            self._layer(layers[name], entry, prefix, path, used, deep, functional=functional)
        return layers

    def _layer(
        self,
        layer: Layer,
        entry: dict[str, Any],
        prefix: str,
        path: str,
        used: dict[str, int],
        deep: int,
        *,
        functional: bool,
    ) -> None:
        """Fills in what `entry` says.

        Args:
            used: the last number of each class in this container of layers; those of a Sequential do not count their input.
        """
        kind, module = entry.get("class_name"), entry.get("module")
        if kind == "InputLayer":
            if module not in ("keras.layers", "keras") or entry.get("registered_name") not in (None, kind):
                self.reader.fault(layer.at, "a class of your own", "begin the model with keras.Input", "custom_layer")
            layer.given, layer.name = entry["config"], layer.stored
            if functional:
                _path(kind, path, used)
            return
        called = kind if isinstance(kind, str) else "layer"
        layer.name = self.names.new(prefix + layer.stored, called)
        if called in MODELS:
            layer.path = _path("Sequential" if kind == "Sequential" else "Functional", path, used)
            layer.model = self.model(entry, layer.at, layer.name + "-", layer.path + "/", deep + 1)
            return
        is_operation = isinstance(module, str) and module.startswith("keras.src.ops.")
        layer.path = "" if is_operation else _path(called, path, used)
        within = entry["config"].get("layer")
        if kind == "TimeDistributed" and isinstance(within, dict) and within.get("class_name") in (*MODELS,):
            layer.model = self.model(
                within, layer.at + "/config/layer", layer.name + "-", layer.path + "/layer/", deep + 1
            )
            if layer.model is not None:
                self._distribute(layer.model)
                layer.model.functional = False
            return
        layer.plain = self.reader.plain(entry, Spot(layer.at, layer.name, layer.path))

    def _distribute(self, model: Model) -> None:
        """A model over time is its layers over time, one by one."""
        for layer in model.layers.values():
            if layer.model is not None:
                self._distribute(layer.model)
            if layer.plain is None or layer.plain.kind in PLACE_BY_PLACE:
                continue
            simple = all(len(args) == 1 and isinstance(args[0], Of) and not kwargs for args, kwargs in layer.nodes)
            allowed = stock_layers.fits_within("TimeDistributed", layer.plain.kind)
            if not simple or not allowed or layer.plain.after is not None:
                hint = "let the model over time be a chain of layers"
                self.reader.fault(layer.at, f"layer {layer.name!r}: cannot be applied step by step", hint, "nested")
                continue
            layer.plain = Plain("TimeDistributed", {"layer": layer.plain.as_data()}, stored=layer.plain)

    def _nodes(self, layer: Layer, nodes: Any) -> None:
        if not isinstance(nodes, list) or len(nodes) > MOST_LAYERS or (layer.given is not None and nodes):
            self.reader.fault(layer.at + "/inbound_nodes", "expected a list of calls", KERAS_2)
            return
        for number, node in enumerate(nodes):
            self.count()
            at = f"{layer.at}/inbound_nodes/{number}"
            layer.nodes.append(plain_arguments(node, at, layer.name, self.reader, of_model=layer.model is not None))

    def _ends(self, value: Any, at: str, layers: dict[str, Layer], counted: set[str]) -> list[tuple[str | None, Of]]:
        found = [(name, of) for name, of in _references(value, counted) if of is not None and of.layer in layers]
        if not found or len(found) < len(list(_references(value, counted))):
            self.reader.fault(at, "expected layers of this model", KERAS_2)
        return found


def _path(kind: str, path: str, used: dict[str, int]) -> str:
    """The place of a container's next layer of a class: Keras counts the layers of each class."""
    name = snake_case(kind)
    number = used[name] = used.get(name, -1) + 1
    return f"{path}layers/{name}" + (f"_{number}" if number else "")


def _references(value: Any, counted: set[str], name: str | None = None) -> Iterator[tuple[str | None, Of | None]]:
    """The tensors of `input_layers` or `output_layers`, as Keras flattens them: a dict by its sorted keys.

    Args:
        counted: models that begin with a call of their own.
    """
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        layer, node, output = value
        fits = type(node) is int and type(output) is int and node >= (layer in counted) and output >= 0
        yield name, Of(layer, node - (layer in counted), output) if fits else None
    elif isinstance(value, list):
        for item in value:
            yield from _references(item, counted)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _references(value[key], counted, key)
    else:
        yield name, None
