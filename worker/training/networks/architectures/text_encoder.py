"""byte-embedding, byte-join, place-numbers, then `encoderN-…`: attention and two dense layers, each beside a skip;
the mean of what is left.

What is learnt of a place begins at 0 and is a layer's bias.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.text_encoder import Spec
from worker.training.networks.architectures._encoder import EPSILON, encoder
from worker.training.networks.architectures.text_cnn import BYTES


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dim) of (batch, bytes)."""
    places = inputs.shape[1] // spec.stride
    x = layers.Embedding(BYTES, spec.dim, name="byte-embedding")(inputs)
    x = layers.Conv1D(
        spec.dim, spec.window or spec.stride, strides=spec.stride, padding="same", activation="gelu", name="byte-join"
    )(x)
    x = layers.EinsumDense("npc,cd->npd", (places, spec.dim), bias_axes="pd", name="place-numbers")(x)
    for number in range(1, spec.depth + 1):
        x = encoder(spec, x, f"encoder{number}")
    x = layers.LayerNormalization(epsilon=EPSILON, name="encoder-norm")(x)
    return layers.GlobalAveragePooling1D(name="global-pool")(x)
