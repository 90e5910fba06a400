"""Configs of Keras 3, written by hand."""

from __future__ import annotations

from typing import Any


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}, "registered_name": None}


def sequential(*layers: dict[str, Any], name: str = "m") -> dict[str, Any]:
    config = {"name": name, "layers": list(layers)}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


INPUT = layer("InputLayer", "x", batch_shape=[None, 4], dtype="float32")


def functional_twice(inner: dict[str, Any], name: str) -> dict[str, Any]:
    """A functional model that calls `inner` on what `inner` gave."""

    def tensor(layer: str, node: int) -> dict[str, Any]:
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, 4], "dtype": "float32", "keras_history": [layer, node, 0]},
        }

    nodes = [{"args": [tensor("x", 0)], "kwargs": {}}, {"args": [tensor("i", 0)], "kwargs": {}}]
    output = ["i", 1 + (inner["class_name"] == "Functional"), 0]
    config = {
        "name": name,
        "layers": [{**INPUT, "name": "x", "inbound_nodes": []}, {**inner, "name": "i", "inbound_nodes": nodes}],
        "input_layers": ["x", 0, 0],
        "output_layers": output,
    }
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": config,
        "registered_name": None,
    }
