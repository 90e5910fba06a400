"""A trunk as Keras builds it, without its numbers: its trace, and how each layer is made again, under any name.

`trunk` calls an architecture's `build` once, in a scope in which Keras gives variables shapes and no values: the largest network
costs some milliseconds a layer and no memory. A network computes with copies made from the layers' configs, one for each node of its
graph.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.backend.common import global_state

from app.spec import architectures
from app.spec.architectures import Architecture, Shape
from app.spec.trace import INPUT, Trace
from worker.training.networks import opened
from worker.training.networks.architectures import builder
from worker.training.networks.opened import Trunk

_KEPT = 64


def trunk(architecture: Architecture, shape: Sequence[int], precision: str = "float32") -> Trunk:
    """The trunk of an architecture on inputs of `shape`, in a precision.

    Raises:
        ValueError: the architecture does not take such inputs.
    """
    trunk_shape = architectures.trunk_shape(architecture, shape)
    return _trunk(json.dumps(architectures.as_data(architecture), sort_keys=True), trunk_shape, precision)


def trace(architecture: Architecture, shape: Sequence[int]) -> Trace:
    """The trace of `architecture` on inputs of `shape`. Raises ValueError as `trunk`."""
    return trunk(architecture, shape).trace


@functools.lru_cache(_KEPT)
def _trunk(architecture: str, shape: Shape, precision: str) -> Trunk:
    spec = architectures.resolve(json.loads(architecture))
    return opened.lay_open(_model(spec, shape, precision), spec.layer_names)


def config(architecture: Architecture, shape: Sequence[int]) -> str:
    """The trunk of an architecture on inputs of `shape` as `model.to_json()` writes it. Raises ValueError as `trunk`."""
    written: str = _model(architecture, architectures.trunk_shape(architecture, shape), "float32").to_json()
    return written


def _model(spec: Architecture, shape: Shape, precision: str) -> Any:
    """The trunk as a Keras model. Raises ValueError as `trunk`."""
    with _without_numbers(precision):
        inputs = keras.Input(shape, name=INPUT, dtype="float32")
        try:
            model = keras.Model(inputs, builder(spec)(spec, inputs), name="trunk")
        except Exception as error:  # whose text is Keras's, or a plugin's
            raise ValueError(f"{spec.label} cannot be built on inputs of shape {list(shape)}") from error
    if len(model.outputs) != 1:
        raise ValueError(f"{spec.label} gives {len(model.outputs)} tensors, the heads stand on one")
    return model


@contextmanager
def _without_numbers(precision: str) -> Iterator[None]:
    """Variables that are made within have shapes and no values, and layers the dtype policy of a precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Else the end of the next scope would initialise them all.
        global_state.set_global_attribute("uninitialized_variables", [])
        keras.config.set_dtype_policy(before)
