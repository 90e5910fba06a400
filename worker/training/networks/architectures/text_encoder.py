"""byte-embedding, byte-join, place-numbers, then `encoderN-…`: attention and two dense layers, each beside a skip; the mean of what is
left. Of texts in tokens the first two are token-embedding and token-join.

What is learnt of a place begins at 0 and is a layer's bias.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.text_encoder import Spec
from worker.training.networks.architectures._encoder import EPSILON, encoder


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dim) of (batch, bytes or tokens)."""
    places = inputs.shape[1] // spec.stride
    x = layers.Embedding(spec.units, spec.dim, name=f"{spec.unit}-embedding")(inputs)
    x = layers.Conv1D(
        spec.dim,
        spec.window or spec.stride,
        strides=spec.stride,
        padding="same",
        activation="gelu",
        name=f"{spec.unit}-join",
    )(x)
    x = layers.EinsumDense("npc,cd->npd", (places, spec.dim), bias_axes="pd", name="place-numbers")(x)
    for number in range(1, spec.depth + 1):
        x = encoder(spec, x, f"encoder{number}")
    x = layers.LayerNormalization(epsilon=EPSILON, name="encoder-norm")(x)
    return layers.GlobalAveragePooling1D(name="global-pool")(x)
