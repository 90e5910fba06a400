"""Networks of keras.applications as one layer of a trunk, and the numbers in a file of weights. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from worker.training.process.failures import Failure

if TYPE_CHECKING:
    from app.spec.models import Backbone


def made(options: Mapping[str, Any], name: str, dtype: Any) -> Any:
    """The layer: pixels as its own preprocessing leaves them, (batch, *size, 3), to features averaged over all places.

    Keras builds an application in the policy that holds everywhere, so it is set meanwhile.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        own: dict[str, Any] = {"alpha": options["alpha"]} if options["name"] == "MobileNetV2" else {}
        own |= {"include_preprocessing": False} if options["name"].startswith("EfficientNetV2") else {}
        shape = (*(options["size"] or (None, None)), 3)
        whole = getattr(keras.applications, options["name"])(
            include_top=False, weights=None, input_shape=shape, pooling="avg", **own
        )
    finally:
        keras.config.set_dtype_policy(before)
    return keras.Model(whole.inputs, whole.outputs[0], name=name)  # not all of them take a name


def parts(name: str, layer: Any) -> Iterator[tuple[str, Any]]:
    """The layers of which a layer is made, itself where it is one; each with a name that is the same in every process.

    Numbered, since in an application some layers are named by a counter of the process.
    """
    if not isinstance(layer, keras.Model):
        yield name, layer
        return
    for number, one in enumerate(layer.layers):
        yield from parts(f"{name}/{number}", one)


def loaded(live: Any, path: str, words: Backbone) -> list[np.ndarray]:
    """The numbers of a Keras file of weights, `.weights.h5` or the older `.h5`: read layer by layer, counts and shapes compared.

    Raises:
        Failure: `weights_unavailable`: it is not of this network.
    """
    expected = f"weights of {words.applications} without its top"
    if words.alpha != 1:
        expected += f" at width {words.alpha:g}"
    try:
        live.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        message = f"the file holds no {expected}: layers or shapes differ, or it is no Keras file of weights"
        raise Failure(
            "weights_unavailable", message, "give the file that ends in no_top.h5", "/source/weights"
        ) from error
    found = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in live.weights]
    if not all(np.isfinite(array).all() for array in found):
        raise Failure("weights_unavailable", "the file holds numbers that are not finite", param="/source/weights")
    return found
