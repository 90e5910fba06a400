"""The arguments that a layer is called with in a Keras config, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from app.model_files._layer_config import Reader
from app.spec import stock_layers
from app.spec.faults import nearest, pointer

DEEPEST = 16
LARGEST = 2**53


class Of(NamedTuple):
    """The tensor that a layer's call gave: `node` counts its calls, `output` the call's tensors."""

    layer: str
    node: int
    output: int


class _Not(Exception):
    """A value that has no plain form."""


def plain_arguments(node: Any, at: str, label: str, reader: Reader, *, of_model: bool) -> tuple[Any, dict[str, Any]]:
    """The positional and the named arguments of a call, tensors as `Of`.

    Args:
        of_model: whether a model is called; its tensors are then the first result, a list or a dict of them.
    """
    if not isinstance(node, dict) or not isinstance(node.get("args"), list) or not isinstance(node.get("kwargs"), dict):
        reader.fault(at, f"layer {label!r}: expected the arguments of a call", "save the model again with Keras 3")
        return [], {}
    args, kwargs = list[Any](), dict[str, Any]()
    for place, value in enumerate(node["args"]):
        args.append(_plain(value, f"{at}/args/{place}", label, reader, of_model))
    for key, value in node["kwargs"].items():
        where = f"{at}/kwargs" + pointer(key)
        if key == "training":
            if value is True:
                reader.note("`training=True` in a call is not taken over", label)
        elif value is None or (of_model and key == "mask"):
            continue  # a mask is worked out from what the layer is given, as when the model was made
        elif of_model and key == "inputs":
            args.append(_plain(value, where, label, reader, of_model))
        elif key not in stock_layers.CALL_ARGUMENTS or of_model:
            reader.fault(
                where,
                f"layer {label!r} cannot be called with this",
                nearest(key, stock_layers.CALL_ARGUMENTS),
                "unknown_field",
            )
        else:
            kwargs[key] = _plain(value, where, label, reader, of_model)
    return args, kwargs


def filled(value: Any, tensor: Callable[[Of], Any]) -> Any:
    """The same with each `Of` replaced by what `tensor` gives for it."""
    if isinstance(value, Of):
        return tensor(value)
    if isinstance(value, list):
        return [filled(item, tensor) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, tensor) for key, item in value.items()}
    return value


def _plain(value: Any, at: str, label: str, reader: Reader, of_model: bool) -> Any:
    try:
        return _of(value, DEEPEST, of_model)
    except _Not as error:
        reader.fault(
            at, f"layer {label!r}: {error}", "call it with tensors, numbers, slices and lists of these", "argument"
        )
        return None


def _of(value: Any, deep: int, dicts: bool) -> Any:
    if not deep:
        raise _Not(f"arguments nested deeper than {DEEPEST} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        if not stock_layers.is_number(value):
            raise _Not("a number that is too large")
        return value
    if isinstance(value, list):
        return [_of(item, deep - 1, dicts) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        return _object(value, deep)
    if isinstance(value, dict) and dicts:
        return {key: _of(item, deep - 1, dicts) for key, item in value.items()}
    raise _Not("an argument that is neither a tensor nor a number")


def _object(value: dict[str, Any], deep: int) -> Any:
    name, config = value["class_name"], value.get("config")
    if name == "__ellipsis__":
        return {"ellipsis": True}
    if not isinstance(config, dict):
        raise _Not("an argument that is neither a tensor nor a number")
    if name == "__keras_tensor__":
        return _tensor(config.get("keras_history"))
    if name == "__slice__":
        ends = [config.get(key) for key in ("start", "stop", "step")]
        if not all(end is None or (type(end) is int and abs(end) <= LARGEST) for end in ends):
            raise _Not("a slice whose ends are no whole numbers")
        return {"slice": ends}
    if name in ("__numpy__", "__tensor__"):
        dtype = config.get("dtype")
        if dtype not in stock_layers.DTYPES:
            raise _Not("an array of an unknown type")
        return {"array": _numbers(config.get("value"), min(deep, 8)), "dtype": "float32" if "float" in dtype else dtype}
    raise _Not("an argument that is neither a tensor nor a number")


def _tensor(history: Any) -> Of:
    if isinstance(history, list) and len(history) == 3:
        layer, node, output = history
        if isinstance(layer, str) and type(node) is int and type(output) is int and node >= 0 and output >= 0:
            return Of(layer, node, output)
    raise _Not("a tensor without a source")


def _numbers(value: Any, deep: int) -> Any:
    if isinstance(value, list) and deep:
        return [_numbers(item, deep - 1) for item in value]
    if stock_layers.is_number(value):
        return value
    raise _Not("an array that does not hold numbers alone")
