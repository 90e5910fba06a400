"""byte-embedding, place-numbers, then `decoderN-…`: attention to places before, and two dense layers, each beside a skip; the mean of
what is left. Of texts in tokens the first is token-embedding.

What is learnt of a place begins at 0 and is a layer's bias.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.causal_transformer import Spec
from worker.training.networks.architectures._encoder import EPSILON, encoder


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dim) of (batch, bytes or tokens). Place t of the map before the mean is made of bytes or tokens 0 to t alone."""
    x = layers.Embedding(spec.units, spec.dim, name=f"{spec.unit}-embedding")(inputs)
    x = layers.EinsumDense("npc,cd->npd", (inputs.shape[1], spec.dim), bias_axes="pd", name="place-numbers")(x)
    for number in range(1, spec.depth + 1):
        x = encoder(spec, x, f"decoder{number}", causal=True)
    x = layers.LayerNormalization(epsilon=EPSILON, name="decoder-norm")(x)
    return layers.GlobalAveragePooling1D(name="global-pool")(x)
