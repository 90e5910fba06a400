"""Which stock layers and operations of Keras a network may be made of, and what each may be given: plain data, known without Keras.

A layer is {"kind": …, "config": …}. `kind` is a class in keras.layers, or "ops.CLASS" of an operation in keras.src.ops; "LayerScale" and
"CustomScaleLayer" are the two classes that keras.applications brings along. No other name is ever looked up.
"""

from __future__ import annotations

from typing import Any

from app.spec.faults import Nearest, nearest, pointer
from app.spec.stock_layers._calls import faults as call_faults
from app.spec.stock_layers._calls import is_number, tensors
from app.spec.stock_layers._layers import CALL_ARGUMENTS, CELLS, INNER, LAYERS, LOOPS, WRAPPERS
from app.spec.stock_layers._operations import MODULES, REQUIRED, SEVERAL, Arguments
from app.spec.stock_layers._rules import ACTIVATIONS, DTYPES, LARGEST

__all__ = [
    "ACTIVATIONS",
    "CALL_ARGUMENTS",
    "CELLS",
    "DTYPES",
    "LARGEST",
    "LOOPS",
    "OPERATION",
    "WRAPPERS",
    "arguments",
    "call_faults",
    "faults",
    "fits_within",
    "gives_several",
    "inner",
    "is_number",
    "kinds",
    "module",
    "tensors",
    "without_defaults",
]

OPERATION = "ops."

Found = tuple[str, str, str | Nearest | None]
"""A pointer below {"kind", "config"}, what was expected, what to do."""

_OPERATIONS: dict[str, tuple[str, Arguments]] = {
    OPERATION + name: (module, arguments) for module, classes in MODULES.items() for name, arguments in classes.items()
}
_APPLICATIONS = {
    "LayerScale": "keras.src.applications.convnext",
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
}

_HINTS = {
    "Lambda": "it holds code, which this service does not run: write it with layers and operations of Keras, or cut it off",
    "TextVectorization": "it works on strings: take it off, and let the model begin at its ids",
    "StringLookup": "it works on strings: take it off, and let the model begin at its ids",
    "TFSMLayer": "it loads a program from a file: send the Keras model that was exported instead",
    "TorchModuleWrapper": "it holds a program of PyTorch: write it with layers of Keras",
    "JaxLayer": "it holds a program: write it with layers of Keras",
    "FlaxLayer": "it holds a program: write it with layers of Keras",
    "FeatureSpace": "take it off, and send the columns as they are",
    "HashedCrossing": "take it off, and send the columns as they are",
}


def kinds() -> frozenset[str]:
    """Every name that a layer's `kind` may be."""
    return frozenset(LAYERS) | frozenset(_OPERATIONS)


def module(kind: str) -> str:
    """The module that holds the class of a known kind."""
    if kind in _OPERATIONS:
        return _OPERATIONS[kind][0]
    return _APPLICATIONS.get(kind, "keras.layers")


def arguments(kind: str) -> Arguments:
    """What a known kind may be given, but for layers within it: each argument's rule, and its default or `...` where it has none."""
    return _OPERATIONS[kind][1] if kind in _OPERATIONS else LAYERS[kind]


def inner(kind: str) -> frozenset[str]:
    """The arguments of a kind that are layers themselves."""
    if kind == "StackedRNNCells":
        return frozenset(["cells"])
    return frozenset([*INNER.get(kind, ()), *(["backward_layer"] if kind == "Bidirectional" else [])])


def fits_within(wrapper: str, kind: str) -> bool:
    """Whether a layer of such a kind may be the one that a wrapper wraps."""
    return kind in INNER[wrapper]["layer"]


def gives_several(kind: str, config: dict[str, Any], kwargs: dict[str, Any]) -> bool:
    """Whether a call of such a layer gives several tensors."""
    if kind.startswith(OPERATION):
        return kind.removeprefix(OPERATION) in SEVERAL
    if kind == "Bidirectional":
        layer = config.get("layer")
        inside = layer.get("config", {}) if isinstance(layer, dict) else {}
        return config.get("merge_mode", "concat") is None or inside.get("return_state") is True
    return config.get("return_state") is True or kwargs.get("return_attention_scores") is True


def without_defaults(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The same without arguments that are as Keras would have them anyway. Sizes that are alike on all sides count as one."""
    known = arguments(kind)
    return {
        key: value
        for key, value in config.items()
        if key not in known
        or ((known[key][1] is REQUIRED or not _same(value, known[key][1])) and not _is_last(key, value))
    }


def faults(kind: Any, config: Any) -> list[Found]:
    """What is wrong with a layer; nothing where it is one that Keras can build, sizes apart. The cost is bounded by what is given."""
    if not isinstance(kind, str) or (kind not in LAYERS and kind not in _OPERATIONS):
        hint = _HINTS.get(kind) if isinstance(kind, str) else None
        return [("/kind", "not a layer that this service builds", hint or nearest(str(kind), kinds()))]
    if not isinstance(config, dict):
        return [("/config", "expected an object of the layer's arguments", None)]
    known, within = arguments(kind), inner(kind)
    found: list[Found] = []
    for key, value in config.items():
        at = "/config" + pointer(str(key))
        if key in within:
            found += _inner_faults(kind, key, value, at)
        elif key not in known:
            found.append((at, f"{kind} has no such argument", nearest(str(key), [*known, *within], "arguments")))
        elif said := known[key][0](value):
            found.append((at, said, _format_hint(key)))
    needed = [key for key, (_, default) in known.items() if default is REQUIRED] + sorted(within - {"backward_layer"})
    found += [("/config" + pointer(key), f"{kind} needs this argument", None) for key in needed if key not in config]
    return found


def _inner_faults(kind: str, key: str, value: Any, at: str) -> list[Found]:
    if key == "cells":
        if not isinstance(value, list) or not 0 < len(value) <= 64:
            return [(at, "expected a list of 1 to 64 cells", None)]
        return [fault for place, cell in enumerate(value) for fault in _one_inner(CELLS, cell, f"{at}/{place}")]
    return _one_inner(INNER[kind]["layer" if key == "backward_layer" else key], value, at)


def _one_inner(allowed: frozenset[str], value: Any, at: str) -> list[Found]:
    if not isinstance(value, dict) or not value.keys() <= {"kind", "config"} or "kind" not in value:
        return [(at, 'expected a layer: {"kind": …, "config": …}', None)]
    kind = value["kind"]
    if isinstance(kind, str) and kind in kinds() and kind not in allowed:
        return [(at + "/kind", "no layer of this kind can stand here", nearest(kind, allowed))]
    return [(at + where, message, hint) for where, message, hint in faults(kind, value.get("config", {}))]


def _is_last(key: str, value: Any) -> bool:
    return key == "data_format" and value == "channels_last"


def _format_hint(key: str) -> str | None:
    return (
        "put the channels last: build the model anew with data_format='channels_last'" if key == "data_format" else None
    )


def _same(value: Any, default: Any) -> bool:
    if isinstance(default, list) and default and isinstance(value, int) and not isinstance(value, bool):
        value = [value] * len(default)
    if isinstance(value, list) and isinstance(default, int) and not isinstance(default, bool) and value:
        default = [default] * len(value)
    if default == "linear" and value is None:
        return True
    if isinstance(value, bool) != isinstance(default, bool):
        return False
    return bool(value == default)
