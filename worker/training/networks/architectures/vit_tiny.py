"""Patches, each projected and given numbers of its own place, then `encoderN-…`: attention and two dense layers, each beside a skip.

The norm stands before them (Dosovitskiy et al. 2021, equations 1 to 4). What is learnt of a place begins at 0 and is the projection's
bias, so that both are one layer.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.vit_tiny import Spec
from worker.training.networks.architectures._encoder import EPSILON, encoder


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dim) of (batch, height, width, channels)."""
    x = _patches(spec, inputs)
    for number in range(1, spec.depth + 1):
        x = encoder(spec, x, f"encoder{number}")
    x = layers.LayerNormalization(epsilon=EPSILON, name="encoder-norm")(x)
    return layers.GlobalAveragePooling1D(name="global-pool")(x)


def _patches(spec: Spec, inputs: Any) -> Any:
    """(batch, patches, dim): row by row, each patch flat, times E, plus what is learnt of its place."""
    height, width, channels = inputs.shape[1:]
    rows, columns = height // spec.patch, width // spec.patch
    flat = spec.patch * channels
    x = layers.Reshape((rows, spec.patch, columns, flat), name="patch-rows")(inputs)
    x = layers.Permute((1, 3, 2, 4), name="patch-order")(x)
    x = layers.Reshape((rows * columns, spec.patch * flat), name="patch-flat")(x)
    shape = (rows * columns, spec.dim)
    return layers.EinsumDense("npc,cd->npd", shape, bias_axes="pd", name="patch-embedding")(x)
