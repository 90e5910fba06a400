"""The Keras layer of each kind of node that joins copies of a trunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from worker.training.sharing import Node


def joining(node: Node, dtype: Any) -> Any:
    options = node.options
    match node.kind:
        case "flatten":
            return keras.layers.Flatten(name=node.name, dtype=dtype)
        case "gate":
            # Always in full precision: a softmax of half numbers would not add up to 1.
            return keras.layers.Dense(
                options["units"], activation="softmax", use_bias=False, name=node.name, dtype="float32"
            )
        case "dot":
            return keras.layers.Dot(1, name=node.name, dtype=dtype)
        case "stitch":
            kernel = "ck" if options["per"] == "channel" else "k"
            return keras.layers.EinsumDense(f"bsck,{kernel}->bsc", node.shape, name=node.name, dtype=dtype)
        case "reshape":
            return keras.layers.Reshape(options["shape"], name=node.name, dtype=dtype)
        case "concatenate":
            return keras.layers.Concatenate(options["axis"] + 1, name=node.name, dtype=dtype)
        case _:
            raise ValueError(f"no rule to make a layer of kind {node.kind!r}")
