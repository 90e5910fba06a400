"""The layers of another network, most of them with fewer channels, under the names that they have there laid open."""

from __future__ import annotations

from typing import Any

import keras

from app.spec.architectures.pruned import Spec
from worker.training.networks import architectures, channels
from worker.training.networks.opened import lay_open


def build(spec: Spec, inputs: Any) -> Any:
    """The features of `spec.of` on (batch, *shape), in `spec.width` of its channels."""
    given = keras.Input(inputs.shape[1:], name="input", dtype="float32")
    whole = keras.Model(given, architectures.builder(spec.whole)(spec.whole, given), name="whole")
    return channels.build(lay_open(whole, spec.whole.layer_names), spec.width, inputs)
