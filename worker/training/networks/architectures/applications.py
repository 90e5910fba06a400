"""A network of keras.applications without its top, on pixels as its own preprocessing leaves them; features averaged over all places.

Nothing is downloaded: its numbers are drawn, or come from a file of the operator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from app.spec.architectures.applications import APPLICATIONS, Spec

NAME = "backbone"


def build(spec: Spec, inputs: Any) -> Any:
    """(batch, features) of (batch, height, width, 3), pixels of 0…1."""
    about = APPLICATIONS[spec.name]
    scaled = keras.layers.Rescaling(about.scale, about.offset, name="backbone_scaled", dtype="float32")
    return whole(spec, inputs.shape[1:3])(scaled(inputs))


def whole(spec: Spec, size: Sequence[int]) -> Any:
    """The network itself, of pictures of `size`, [height, width], as a model named `backbone`."""
    own: dict[str, Any] = {"alpha": spec.alpha} if spec.name == "MobileNetV2" else {}
    own |= {"include_preprocessing": False} if spec.name.startswith("EfficientNetV2") else {}
    made = getattr(keras.applications, spec.name)(
        include_top=False, weights=None, input_shape=(*size, 3), pooling="avg", **own
    )
    return keras.Model(made.inputs, made.outputs[0], name=NAME)  # not all of them take a name
