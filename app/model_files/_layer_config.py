"""One layer of a Keras config as a kind and plain arguments, as `app.spec.stock_layers` knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.spec import stock_layers
from app.spec.faults import Fault, pointer

Beside = Callable[[str], dict[str, Any]]
"""What a file keeps beside its config for the IntegerLookup at a path: `vocabulary`, `idf_weights`."""

REGULARIZATION = "ActivityRegularization"

DROPPED = frozenset(
    [
        "name",
        "dtype",
        "trainable",
        "seed",
        "autocast",
        "unroll",
        "use_cudnn",
        "unit_forget_bias",
        "synchronized",
        "renorm_clipping",
        "renorm_momentum",
        "weights",
        "build_config",
        "value_initializer",
    ]
)
"""Arguments that change neither what a layer computes nor what it has learned."""

ENDINGS = ("_initializer", "_regularizer", "_constraint")

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

ACTIVATIONS = frozenset(["ReLU", "LeakyReLU", "ELU", "Softmax"])
"""Layers that another layer may hold as its activation."""

MODULES = frozenset(["keras.layers", "keras", "keras.models"])
FUNCTION_MODULES = frozenset(["builtins", "keras.activations", "keras.src.activations.activations"])
FLOATS = frozenset(["float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "mixed_float32"])
WHOLES = frozenset(["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"])


@dataclass
class Plain:
    """A layer: its `config` without defaults. `after`: a layer that it had as its activation."""

    kind: str
    config: dict[str, Any]
    after: Plain | None = None


class Reader:
    """Reads layers' configs and collects what is wrong with them."""

    def __init__(self, beside: Beside) -> None:
        self.beside = beside
        self.faults: list[Fault] = []
        self.notes: dict[str, list[str]] = {}

    def fault(self, at: str, message: str, hint: Any = None, code: str = "invalid") -> None:
        self.faults.append(Fault(at, message, hint, code))

    def note(self, message: str, layer: str) -> None:
        self.notes.setdefault(message, []).append(layer)

    def plain(self, entry: Any, at: str, label: str, path: str, *, within: bool = False) -> Plain | None:
        """The layer that `entry` describes; None where it is none, with the faults said.

        Args:
            at: a pointer to the entry.
            label: its name in messages.
            path: where the file keeps what belongs to it.
            within: whether it is another layer's, which has no room for an activation of its own.
        """
        kind = self.kind(entry, at, label)
        if kind is None:
            return None
        config = entry.get("config")
        if not isinstance(config, dict):
            self.fault(at + "/config", f"layer {label!r}: expected an object of the layer's arguments")
            return None
        if kind == REGULARIZATION:
            self.note("regularizers and constraints are not taken over", label)
            return Plain("Identity", {})
        result, said = Plain(kind, {}), len(self.faults)
        for key, value in config.items():
            self._argument(result, key, value, at + "/config" + pointer(str(key)), label, path, within)
        if kind == "IntegerLookup" and result.config.get("vocabulary") is None:
            result.config |= self.beside(path)
        self._judge(result, at, label, said)
        return result

    def kind(self, entry: Any, at: str, label: str) -> str | None:
        """The kind of layer that `entry` says it is of; None where it is none of the stock layers."""
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            self.fault(at, f"layer {label!r}: expected a layer of Keras 3", "save the model again with Keras 3")
            return None
        name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
        operation = stock_layers.OPERATION + name
        is_operation = isinstance(module, str) and module.startswith("keras.src.ops.")
        kind = operation if is_operation else name
        known = kind in stock_layers.kinds() or kind == REGULARIZATION
        right = module in MODULES if not is_operation else False
        right = right or (known and kind != REGULARIZATION and module == stock_layers.module(kind))
        if known and right and registered in (None, name):
            return kind
        if known and (registered not in (None, name) or not right):
            self.fault(
                at,
                f"layer {label!r}: a class of your own, or from elsewhere than keras.layers",
                "build the model of Keras's own layers, or cut that part off",
                "custom_layer",
            )
            return None
        for _, message, hint in stock_layers.faults(kind, {}):
            custom = None if hint is None or not isinstance(hint, str) else hint
            self.fault(at + "/class_name", f"layer {label!r}: {message}", custom or hint, "unknown_layer")
        return None

    def _argument(self, result: Plain, key: str, value: Any, at: str, label: str, path: str, within: bool) -> None:
        kind = result.kind
        if key == "dtype" and kind != "ops.Cast" and kind not in _WITH_DTYPE:
            self._dtype(value, at, label)
        elif key in ("dtype", "reverse_dtype") and value in ("float16", "bfloat16", "float64"):
            self.note("numbers of 16 or 64 bits become float32", label)
            result.config[key] = "float32"
        elif key in stock_layers.inner(kind):
            self._inner(result, key, value, at, label, path)
        elif key == "activation" or key == "recurrent_activation":
            self._activation(result, key, value, at, label, path, within)
        elif key in stock_layers.arguments(kind):
            result.config[key] = value
        else:
            self._dropped(kind, key, value, at, label)

    def _dropped(self, kind: str, key: str, value: Any, at: str, label: str) -> None:
        if key.endswith(("_regularizer", "_constraint")):
            if value is not None:
                self.note("regularizers and constraints are not taken over", label)
        elif key == "trainable":
            if value is False:
                self.note("`trainable: false` is not taken over: a job says what it freezes", label)
        elif key in ("lora_rank", "lora_alpha"):
            if value is not None:
                self.note("LoRA is merged into the weights", label)
        elif (
            key in DROPPED
            or key.endswith(ENDINGS)
            or (
                key in FORMER and (FORMER[key][0] is ... or any(value is item or value == item for item in FORMER[key]))
            )
        ):
            return
        else:
            for where, message, hint in stock_layers.faults(kind, {key: value}):
                if where.startswith("/config" + pointer(key)):
                    self.fault(at, f"layer {label!r}: {message}", hint, "unknown_field")

    def _dtype(self, value: Any, at: str, label: str) -> None:
        if isinstance(value, dict):
            config, name = value.get("config"), value.get("class_name")
            if (
                name != "DTypePolicy"
                or value.get("module") != "keras"
                or value.get("registered_name") not in (None, name)
            ):
                self.fault(
                    at,
                    f"layer {label!r}: quantized, or of numbers of another type",
                    "send the model as float32",
                    "dtype",
                )
                return
            value = config.get("name") if isinstance(config, dict) else None
        if value is None or value == "float32":
            return
        if isinstance(value, str) and value in FLOATS:
            self.note("numbers of 16 or 64 bits become float32", label)
        elif not (isinstance(value, str) and value in WHOLES):
            self.fault(at, f"layer {label!r}: expected numbers of a known type", "send the model as float32", "dtype")

    def _inner(self, result: Plain, key: str, value: Any, at: str, label: str, path: str) -> None:
        if key == "backward_layer" and value is None:
            return
        if key == "cells":
            cells = [
                self.plain(cell, f"{at}/{place}", label, path, within=True)
                for place, cell in enumerate(value if isinstance(value, list) else [])
            ]
            result.config[key] = [_as_data(cell) for cell in cells if cell is not None]
            return
        if isinstance(value, dict) and value.get("class_name") in ("Sequential", "Functional", "Model"):
            self.fault(
                at,
                f"layer {label!r}: holds a whole model",
                f"wrap each of its layers in a {result.kind} of its own",
                "nested",
            )
            return
        inside = self.plain(value, at, label, f"{path}/{key}", within=True)
        if inside is not None:
            result.config[key] = _as_data(inside)

    def _activation(self, result: Plain, key: str, value: Any, at: str, label: str, path: str, within: bool) -> None:
        """A name as it is; a function of keras.activations by its name; a layer, as a layer after this one."""
        if isinstance(value, dict) and value.get("class_name") == "function":
            known = value.get("module") in FUNCTION_MODULES
            value = value.get("config") if known else value
        if isinstance(value, dict) and value.get("class_name") in ACTIVATIONS and key == "activation" and not within:
            result.after = self.plain(value, at, label, f"{path}/{key}", within=True)
            if result.kind == "Activation":
                result.config[key] = "linear"
            return
        if value is None or (isinstance(value, str) and value in stock_layers.ACTIVATIONS):
            result.config[key] = "linear" if value is None else value
            return
        self.fault(
            at,
            f"layer {label!r}: expected the name of an activation of Keras",
            "use one of keras.activations by its name, or make it a layer of its own",
            "unknown_activation",
        )
        result.config[key] = "linear"

    def _judge(self, result: Plain, at: str, label: str, said: int) -> None:
        """Adds what is wrong with the plain form, but for arguments that are missing because they were already found wrong."""
        result.config = stock_layers.without_defaults(result.kind, result.config)
        known = {fault.pointer for fault in self.faults[said:]}
        for where, message, hint in stock_layers.faults(result.kind, result.config):
            if at + where not in known and not any(place.startswith(at + where + "/") for place in known):
                self.fault(at + where, f"layer {label!r}: {message}", hint)


_WITH_DTYPE = frozenset(kind for kind in stock_layers.kinds() if "dtype" in stock_layers.arguments(kind))


def _as_data(plain: Plain) -> dict[str, Any]:
    return {"kind": plain.kind, "config": plain.config} if plain.config else {"kind": plain.kind}
