"""A nested model for each part, named by it, its features made flat; then all of them joined, and dense layers on that.

Names have dashes, which no task's name has: a part may be called as a task is.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

import keras
from keras import layers

from app.spec.architectures.late_fusion import Spec
from worker.training.networks import architectures


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, the last of `units`, or all features side by side) of (batch, numbers), the parts one after another."""
    whole, start, features = inputs.shape[1], 0, []
    column = layers.Reshape((whole, 1), name="fusion-row", dtype="float32")(inputs)
    for name, (part, architecture) in zip(_names(spec), spec.parts.items(), strict=True):
        shape = tuple(spec.shapes[part])
        end = start + prod(shape)
        cut = layers.Cropping1D((start, whole - end), name=f"{name}-cut", dtype="float32")(column)
        start = end
        given = keras.Input(shape, name=f"{name}-input", dtype="float32")
        model = keras.Model(given, architectures.builder(architecture)(architecture, given), name=name)
        x = model(layers.Reshape(shape, name=f"{name}-rows", dtype="float32")(cut))
        features.append(x if len(x.shape) == 2 else layers.Flatten(name=f"{name}-flat")(x))
    x = layers.Concatenate(name="fusion-joined")(features)
    for number, width in enumerate(spec.units, 1):
        if spec.dropout:
            x = layers.Dropout(spec.dropout, name=f"fusion-dropout{number}")(x)
        x = layers.Dense(width, activation="relu", name=f"fusion-dense{number}")(x)
    return x


def _names(spec: Spec) -> list[str]:
    """A layer's name for each part: its own, of letters, digits and underscores alone, and different from all others."""
    names = list[str]()
    for name in spec.parts:
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "part"
        names.append(plain if plain not in ("fusion", *names) else f"{plain}_{len(names)}")
    return names
