"""byte-embedding, conv1 to conv3 with poolings between, the largest value over all places, text-dense. Of texts in tokens the first is
token-embedding.

The zeros that fill a text up have numbers of their own, which the largest value over all places passes by where a text has more to say.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from app.spec.architectures.text_cnn import POOL, Spec

WIDTHS = (7, 5, 3)


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, dense) of (batch, bytes or tokens)."""
    x = layers.Embedding(spec.units, spec.embedding, name=f"{spec.unit}-embedding")(inputs)
    for number, width in enumerate(WIDTHS, 1):
        x = layers.Conv1D(spec.filters, width, padding="same", activation="relu", name=f"conv{number}")(x)
        if number < len(WIDTHS):
            x = layers.MaxPooling1D(POOL, name=f"pool{number}")(x)
    x = layers.GlobalMaxPooling1D(name="global-pool")(x)
    x = layers.Dense(spec.dense, activation="relu", name="text-dense")(x)
    return layers.Dropout(spec.dropout, name="text-dropout")(x) if spec.dropout else x
