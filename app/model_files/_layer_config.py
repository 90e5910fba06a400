"""One layer of a Keras config as a kind and plain arguments, as `app.spec.stock_layers` knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.spec import stock_layers
from app.spec.faults import Fault, Nearest, nearest, pointer

Beside = Callable[[str], dict[str, Any]]
"""What a file keeps beside its config for the IntegerLookup at a path: `vocabulary`, `idf_weights`."""

REGULARIZATION = "ActivityRegularization"

DROPPED = frozenset(
    [
        "autocast",
        "dtype",
        "name",
        "renorm_clipping",
        "renorm_momentum",
        "seed",
        "synchronized",
        "trainable",
        "unit_forget_bias",
        "unroll",
        "use_cudnn",
        "weights",
    ]
)
"""Arguments that change neither what a layer computes nor what it has learned."""

FORMER: dict[str, tuple[Any, ...]] = {
    "rms_scaling": (False,),
    "quantization_config": (None,),
    "gptq_unpacked_column_size": (None,),
    "time_major": (False,),
    "implementation": (0, 1, 2),
    "vocabulary_size": (...,),
    "ragged": (False, None),
    "zero_output_for_mask": (False,),
    "bounding_box_format": (None,),
    "batch_input_shape": (...,),
    "batch_shape": (...,),
}
"""Arguments of other versions of Keras, and of its bases, with the values that change nothing; `...`: any."""

ACTIVATIONS = ("ReLU", "LeakyReLU", "ELU", "Softmax")
"""Layers that another layer may hold as its activation."""

MODULES = ("keras.layers", "keras", "keras.models")
FUNCTION_MODULES = ("builtins", "keras.activations", "keras.src.activations.activations")
POLICIES, POLICY_MODULES = ("DTypePolicy", "FloatDTypePolicy"), ("keras", "keras.dtype_policies")
OTHER_FLOATS = ("float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "mixed_float32")
WHOLES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")


@dataclass
class Plain:
    """A layer: its `config` without defaults. `after`: a layer that it had as its activation. `stored`: what a file of weights has in its
    place; None: the layer itself."""

    kind: str
    config: dict[str, Any]
    after: Plain | None = None
    stored: Plain | None = None

    def as_data(self) -> dict[str, Any]:
        return {"kind": self.kind, "config": self.config} if self.config else {"kind": self.kind}


OTHERWISE = "build the model so, or cut that layer off"
NARROW = "numbers of other types than float32 become float32"
REGULARIZED = "regularizers and constraints are not taken over"


@dataclass(frozen=True)
class Spot:
    """Where a layer stands: a pointer to its entry, its name in messages, its place in a file of weights; `within`: in another layer."""

    at: str
    label: str
    path: str
    within: bool = False

    def inner(self, *keys: str | int) -> Spot:
        below = "/".join(str(key) for key in keys)
        return Spot(self.at + pointer("config", *keys), self.label, f"{self.path}/{below}", within=True)


class Reader:
    """Reads layers' configs and collects what is wrong with them."""

    def __init__(self, beside: Beside) -> None:
        self.beside = beside
        self.faults: list[Fault] = []
        self._notes: dict[str, dict[str, None]] = {}

    def fault(self, at: str, message: str, hint: str | Nearest | None = None, code: str = "invalid") -> None:
        self.faults.append(Fault(at, message, hint, code))

    def note(self, message: str, layer: str) -> None:
        self._notes.setdefault(message, {})[layer] = None

    def told(self) -> list[str]:
        """The notes, each with the layers that it is about."""
        return [_note(message, list(layers)) for message, layers in self._notes.items()]

    def plain(self, entry: Any, spot: Spot) -> Plain | None:
        """The layer that `entry` describes; None where it is none, with the faults said."""
        kind = self._kind(entry, spot)
        if kind is None:
            return None
        config = entry.get("config")
        if not isinstance(config, dict):
            self.fault(
                spot.at + "/config", f"layer {spot.label!r}: expected an object of the layer's arguments", OTHERWISE
            )
            return None
        if kind == REGULARIZATION:
            self.note(REGULARIZED, spot.label)
            return Plain("Identity", {})
        result, said = Plain(kind, {}), len(self.faults)
        for key, value in config.items():
            self._argument(result, key, value, spot)
        if kind == "IntegerLookup" and result.config.get("vocabulary") is None:
            result.config |= self.beside(spot.path)
        result.config = stock_layers.without_defaults(kind, result.config)
        known = [fault.pointer for fault in self.faults[said:]]
        for where, message, hint in stock_layers.faults(kind, result.config):
            at = spot.at + where
            if not any(place == at or place.startswith(at + "/") for place in known):
                self.fault(at, f"layer {spot.label!r}: {message}", hint or OTHERWISE)
        return result

    def _kind(self, entry: Any, spot: Spot) -> str | None:
        """The kind of layer that `entry` says it is of; None where it is none of the stock layers."""
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            self.fault(
                spot.at, f"layer {spot.label!r}: expected a layer of Keras 3", "save the model again with Keras 3"
            )
            return None
        name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
        is_operation = isinstance(module, str) and module.startswith("keras.src.ops.")
        kind: str = stock_layers.OPERATION + name if is_operation else name
        if kind == REGULARIZATION:
            homes: tuple[str, ...] = MODULES
        elif kind in stock_layers.kinds():
            homes = (stock_layers.module(kind), *(() if is_operation else MODULES))
        else:
            for _, message, hint in stock_layers.faults(kind, {}):
                self.fault(spot.at + "/class_name", f"layer {spot.label!r}: {message}", hint, "unknown_layer")
            return None
        if module in homes and registered in (None, name):
            return kind
        message = f"layer {spot.label!r}: a class of your own, or from elsewhere than keras.layers"
        self.fault(spot.at, message, "build the model of Keras's own layers, or cut that part off", "custom_layer")
        return None

    def _argument(self, result: Plain, key: str, value: Any, spot: Spot) -> None:
        known = stock_layers.arguments(result.kind)
        if key in ("dtype", "reverse_dtype") and key in known:
            if value in OTHER_FLOATS:
                self.note(NARROW, spot.label)
            result.config[key] = "float32" if value in OTHER_FLOATS else value
        elif key == "dtype":
            self._dtype(value, spot)
        elif key in stock_layers.inner(result.kind):
            self._inner(result, key, value, spot)
        elif key in ("activation", "recurrent_activation") and key in known:
            self._activation(result, key, value, spot)
        elif key in known:
            result.config[key] = value
        else:
            self._dropped(result.kind, key, value, spot)

    def _dropped(self, kind: str, key: str, value: Any, spot: Spot) -> None:
        if key.endswith(("_regularizer", "_constraint")):
            if value is not None:
                self.note(REGULARIZED, spot.label)
        elif key == "trainable":
            if value is False:
                self.note("`trainable: false` is not taken over: a job says what it freezes", spot.label)
        elif key in ("lora_rank", "lora_alpha"):
            if value is not None:
                self.note("LoRA is merged into the weights", spot.label)
        elif not (key in DROPPED or key.endswith("_initializer") or _is_former(key, value)):
            known = [*stock_layers.arguments(kind), *stock_layers.inner(kind)]
            message = f"layer {spot.label!r}: {kind} has no such argument here"
            self.fault(spot.at + pointer("config", key), message, nearest(key, known, "arguments"), "unknown_field")

    def _dtype(self, value: Any, spot: Spot) -> None:
        if isinstance(value, dict):
            name, config = value.get("class_name"), value.get("config")
            known = name in POLICIES and value.get("module") in POLICY_MODULES
            stock = known and value.get("registered_name") in (None, name)
            value = config.get("name") if stock and isinstance(config, dict) else ...
        if value in OTHER_FLOATS:
            self.note(NARROW, spot.label)
        elif value not in (None, "float32", *WHOLES):
            message = f"layer {spot.label!r}: quantized, or of numbers of another type"
            self.fault(spot.at + "/config/dtype", message, "send the model as float32", "dtype")

    def _inner(self, result: Plain, key: str, value: Any, spot: Spot) -> None:
        if key == "backward_layer" and value is None:
            return
        if key == "cells" and isinstance(value, list):
            cells = [self.plain(cell, spot.inner(key, place)) for place, cell in enumerate(value)]
            result.config[key] = [cell.as_data() for cell in cells if cell is not None]
        elif isinstance(value, dict) and value.get("class_name") in ("Sequential", "Functional", "Model"):
            at, hint = spot.at + pointer("config", key), f"wrap each of its layers in a {result.kind} of its own"
            self.fault(at, f"layer {spot.label!r}: holds a whole model", hint, "nested")
        else:
            inside = self.plain(value, spot.inner(key))
            if inside is not None:
                result.config[key] = inside.as_data()

    def _activation(self, result: Plain, key: str, value: Any, spot: Spot) -> None:
        """A name as it is; a function of keras.activations by its name; a layer, as a layer after this one."""
        is_object = isinstance(value, dict)
        if is_object and value.get("class_name") == "function" and value.get("module") in FUNCTION_MODULES:
            value = value.get("config")
        result.config[key] = "linear"
        if is_object and value is not None and key == "activation" and not spot.within and _is_activation(value):
            result.after = self.plain(value, spot.inner(key))
        elif isinstance(value, str) and value in stock_layers.ACTIVATIONS:
            result.config[key] = value
        elif value is not None:
            message = f"layer {spot.label!r}: expected the name of an activation of Keras"
            hint = "use one of keras.activations by its name, or make it a layer of its own"
            self.fault(spot.at + pointer("config", key), message, hint, "unknown_activation")


def _is_activation(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") in ACTIVATIONS


def _is_former(key: str, value: Any) -> bool:
    return key in FORMER and (
        FORMER[key] == (...,) or any(type(value) is type(item) and value == item for item in FORMER[key])
    )


def _note(message: str, layers: list[str]) -> str:
    shown = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if len(layers) > 5 else "")
    return f"{message} ({shown})"
