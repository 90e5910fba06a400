"""Configs of Keras 3, written by hand."""

from __future__ import annotations

from typing import Any


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}, "registered_name": None}


def sequential(*layers: dict[str, Any], name: str = "m") -> dict[str, Any]:
    config = {"name": name, "layers": list(layers)}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


INPUT = layer("InputLayer", "x", batch_shape=[None, 4], dtype="float32")
