"""Layers of Keras by the names of their classes, called in the order of the graph.

The trunk's one input becomes the tensors that the graph is given: its numbers in another shape, and of several the parts of a row, by
name. No layer is looked up but those of `app.spec.stock_layers`, nor given what that refuses, whoever wrote the graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import keras
import numpy as np

from app.spec import stock_layers
from app.spec.architectures.keras_graph import Given, Spec, StockLayer

WITHOUT_CHANCE = frozenset({"Resizing", "CenterCrop", "AutoContrast"})
"""Layers that ignore `training`. Where nobody says it, they would make all layers after them run as in training (Keras 3.15)."""


def build(spec: Spec, inputs: Any) -> Any:
    """The output of `spec.features` for (batch, *shape) float32.

    Raises:
        ValueError: a layer is no stock one, or its config is not plain; an argument names no tensor.
    """
    operations = dict[str, Any]()
    outputs = _given(spec, inputs)
    for call in spec.calls:
        args, kwargs = _arguments(call.args, outputs), _arguments(call.kwargs, outputs)
        if call.layer not in operations:
            operations[call.layer] = made(_sized(spec.layers[call.layer], args), call.layer)
        operation = operations[call.layer]
        if spec.layers[call.layer].kind == "ops.GetItem":  # a list would choose rows
            args = [tuple(value) if isinstance(value, list) else value for value in args]
            kwargs = {name: tuple(value) if isinstance(value, list) else value for name, value in kwargs.items()}
        if spec.layers[call.layer].kind in WITHOUT_CHANCE:
            kwargs["training"] = False
        outputs[call.name] = operation(*args, **kwargs)
    features = outputs[spec.features]
    return features[0] if isinstance(features, list | tuple) else features


def _sized(layer: StockLayer, args: Sequence[Any]) -> StockLayer:
    """The layer with the sides of its output that an EinsumDense leaves open, and that its input has."""
    sides = layer.config.get("output_shape")
    if layer.kind != "EinsumDense" or not isinstance(sides, list) or None not in sides:
        return layer
    axes, _, left = str(layer.config["equation"]).replace(" ", "").partition("->")
    axes, shape = axes.partition(",")[0], args[0].shape
    others = "".join(
        map(chr, range(0x100, 0x100 + len(shape) - len(axes) + 3))
    )  # letters of the axes that "..." stands for
    known = dict(zip(axes.replace("...", others), shape, strict=True))
    names = left.replace("...", others)[-len(sides) :]
    filled = [known.get(name) if side is None else side for name, side in zip(names, sides, strict=True)]
    return layer.model_copy(update={"config": {**layer.config, "output_shape": filled}})


def made(layer: StockLayer, name: str) -> Any:
    """The Keras layer or operation of a plain one, called `name`. Raises ValueError."""
    for where, message, _ in stock_layers.faults(layer.kind, layer.config):
        raise ValueError(f"the layer {name!r}: {where}: {message}")
    return _made(layer.kind, layer.config, name)


def _made(kind: str, config: Mapping[str, Any], name: str) -> Any:
    within = stock_layers.inner(kind)
    arguments = {key: _inner(key, value) if key in within else value for key, value in config.items()}
    return getattr(importlib.import_module(stock_layers.module(kind)), kind.removeprefix("ops."))(
        **arguments, name=name
    )


def _inner(name: str, value: Any) -> Any:
    """The layers within a layer, called as the arguments that they are."""
    if isinstance(value, list):
        return [_inner(f"{name}{number}", one) for number, one in enumerate(value)]
    return _made(value["kind"], value.get("config", {}), name)


def _arguments(value: Any, outputs: Mapping[str, Any]) -> Any:
    """Arguments of a call with the tensors that they name."""
    match value:
        case {"tensor": str(name)}:
            if name not in outputs:
                raise ValueError(f"no input and no earlier call is named {name!r}")
            output = outputs[name]
            return output[value.get("output", 0)] if isinstance(output, list | tuple) else output
        case {"slice": [start, stop, step]}:
            return slice(start, stop, step)
        case {"ellipsis": True}:
            return ...
        case {"array": numbers, "dtype": str(dtype)} if dtype in stock_layers.DTYPES:
            return np.asarray(numbers, dtype)
        case dict():
            return {key: _arguments(one, outputs) for key, one in value.items()}
        case list():
            return [_arguments(one, outputs) for one in value]
    return value


def _given(spec: Spec, inputs: Any) -> dict[str, Any]:
    """The tensors that the graph is given, by name."""
    taken = {"input", *spec.layers}
    parts = {given.name: inputs for given in spec.given}
    if len(spec.given) > 1:
        parts = _cut(sorted(spec.given, key=lambda given: given.name), inputs, taken)
    for given in spec.given:
        if parts[given.name].shape[1:] != tuple(given.shape):
            name = _free(f"{given.name}-rows", taken)
            parts[given.name] = keras.layers.Reshape(tuple(given.shape), name=name, dtype="float32")(parts[given.name])
        if given.integers:
            within = keras.layers.ReLU(given.largest, name=_free(f"{given.name}-within", taken), dtype="float32")
            parts[given.name] = within(parts[given.name])
            cast = StockLayer(kind="ops.Cast", config={"dtype": "int32"})
            parts[given.name] = made(cast, _free(f"{given.name}-whole", taken))(parts[given.name])
    return parts


def _cut(parts: Sequence[Given], inputs: Any, taken: set[str]) -> dict[str, Any]:
    """{name: (batch, numbers, 1)} of the parts of flat rows, which stand one after another."""
    whole, start, cut = prod(inputs.shape[1:]), 0, dict[str, Any]()
    column = keras.layers.Reshape((whole, 1), name=_free("given-row", taken), dtype="float32")(inputs)
    for given in parts:
        end = start + prod(given.shape)
        name = _free(f"{given.name}-cut", taken)
        cut[given.name] = keras.layers.Cropping1D((start, whole - end), name=name, dtype="float32")(column)
        start = end
    return cut


def _free(name: str, taken: set[str]) -> str:
    """A name that no layer has, near `name`."""
    while name in taken:
        name += "-"
    taken.add(name)
    return name
