"""The Keras layer of each kind of node in a network's graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from worker.training.networks import backbone

if TYPE_CHECKING:
    from worker.training.sharing import Node


def keras_layer(layer: Node, dtype: Any) -> Any:
    options = layer.options
    activation = options.get("activation")
    match layer.kind:
        case "conv2d":
            return keras.layers.Conv2D(
                options["filters"],
                options.get("kernel", 3),
                strides=options.get("strides", 1),
                padding=options.get("padding", "valid"),
                activation=activation,
                use_bias=options.get("use_bias", True),
                name=layer.name,
                dtype=dtype,
            )
        case "max_pool2d":
            return keras.layers.MaxPooling2D(options.get("pool", 2), name=layer.name, dtype=dtype)
        case "flatten":
            return keras.layers.Flatten(name=layer.name, dtype=dtype)
        case "global_average_pool2d":
            return keras.layers.GlobalAveragePooling2D(name=layer.name, dtype=dtype)
        case "dense":
            return keras.layers.Dense(options["units"], activation=activation, name=layer.name, dtype=dtype)
        case "batch_norm":
            return keras.layers.BatchNormalization(name=layer.name, dtype=dtype)
        case "dropout":
            return keras.layers.Dropout(options["rate"], name=layer.name, dtype=dtype, seed=0)
        case "activation":
            return keras.layers.Activation(activation, name=layer.name, dtype=dtype)
        case "rescaling":
            return keras.layers.Rescaling(options["scale"], options["offset"], name=layer.name, dtype="float32")
        case "application":
            return backbone.made(options, layer.name, dtype)
        case "gate":
            # Always in full precision: a softmax of half numbers would not add up to 1.
            return keras.layers.Dense(
                options["units"], activation="softmax", use_bias=False, name=layer.name, dtype="float32"
            )
        case "dot":
            return keras.layers.Dot(1, name=layer.name, dtype=dtype)
        case "stitch":
            kernel = "ck" if options["per"] == "channel" else "k"
            return keras.layers.EinsumDense(f"bsck,{kernel}->bsc", layer.shape, name=layer.name, dtype=dtype)
        case "reshape":
            return keras.layers.Reshape(options["shape"], name=layer.name, dtype=dtype)
        case "concatenate":
            return keras.layers.Concatenate(options["axis"] + 1, name=layer.name, dtype=dtype)
        case _:
            raise ValueError(f"no rule to make a layer of kind {layer.kind!r}")
