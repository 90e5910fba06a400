"""A live Keras model as the plain data of a graph, and its arrays: what a user's file becomes, made here from Keras's own objects."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from app.spec import architectures
from app.spec.architectures.keras_graph import Spec
from worker.training.networks import trunk
from worker.training.networks.trunk import LayerOutput

DROPPED = ("initializer", "regularizer", "constraint", "build_config", "quantization", "activity_")
UNUSED = {
    "name",
    "dtype",
    "trainable",
    "batch_input_shape",
    "sparse",
    "ragged",
    "query_shape",
    "value_shape",
    "key_shape",
}


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    plain = {}
    for key, value in config.items():
        if key in UNUSED or value is None or any(word in key for word in DROPPED):
            continue
        plain[key] = plain_value(value)
    return plain


def plain_value(value: Any) -> Any:
    match value:
        case {"class_name": str(kind), "config": dict(config)}:
            return {"kind": kind, "config": plain_config(config)}
        case {"class_name": _, "config": str(name)}:
            return name
        case list() | tuple():
            return [plain_value(one) for one in value]
        case np.ndarray():
            return value.tolist()
        case np.generic():
            return value.item()
    return value


def kind_of(operation: Any) -> str:
    name = type(operation).__name__
    name = {"GroupedQueryAttention": "GroupQueryAttention"}.get(name, name)
    return name if isinstance(operation, keras.layers.Layer) else f"ops.{name}"


def of(model: Any, kind: str = "multimodal") -> tuple[Spec, dict[str, list[np.ndarray]]]:
    """The graph up to a model's only output, and {layer: its arrays}."""
    if isinstance(model, keras.Sequential):
        model = model._functional
    outputs = {id(tensor): LayerOutput(f"/{tensor.name}", 0) for tensor in model.inputs}
    layers: dict[str, Any] = {}
    calls, names, arrays = [], dict[int, str](), dict[str, list[np.ndarray]]()
    for name, _, _, part in trunk._walk(model, "", "", None, outputs):
        own = part.same_as or name
        if part.same_as is None:
            layers[own] = {"kind": kind_of(part.operation), "config": plain_config(part.operation.get_config())}
            if getattr(part.operation, "weights", None):
                arrays[own] = [np.asarray(keras.ops.convert_to_numpy(one.value)) for one in part.operation.weights]
        args, kwargs = part.arguments
        sources = part.sources
        calls.append(
            {
                "name": name,
                "layer": own,
                "args": [argument(one, sources) for one in args],
                "kwargs": {key: argument(one, sources) for key, one in kwargs.items() if one is not None},
            }
        )
    (output,) = model.outputs
    source = outputs[id(output)]
    given = [
        {"name": tensor.name, "shape": list(tensor.shape[1:]), **({"integers": True} if "int" in tensor.dtype else {})}
        for tensor in model.inputs
    ]
    data = {
        "arch": "keras-graph", "kind": kind, "given": given, "layers": layers, "calls": calls, "features": source.layer,
    }  # fmt: skip
    spec = architectures.resolve(data)
    assert isinstance(spec, Spec)
    return spec, arrays


def argument(value: Any, sources: Any) -> Any:
    if isinstance(value, keras.KerasTensor):
        source = sources[id(value)]
        name = source.layer.removeprefix("/")
        return {"tensor": name, "output": source.number} if source.number else {"tensor": name}
    match value:
        case slice():
            return {"slice": [value.start, value.stop, value.step]}
        case list() | tuple():
            return [argument(one, sources) for one in value]
        case dict():
            return {key: argument(one, sources) for key, one in value.items()}
    if keras.ops.is_tensor(value):
        return {
            "array": keras.ops.convert_to_numpy(value).tolist(),
            "dtype": keras.backend.standardize_dtype(value.dtype),
        }
    return {"ellipsis": True} if value is Ellipsis else value


def rows(spec: Spec, given: dict[str, np.ndarray]) -> np.ndarray:
    """Inputs by name as the rows that the trunk is given."""
    if len(spec.given) == 1:
        return given[spec.given[0].name].astype(np.float32)
    return np.concatenate([given[name].reshape(len(given[name]), -1) for name in sorted(given)], axis=1).astype(
        np.float32
    )
