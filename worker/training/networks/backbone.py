"""The numbers of a network of keras.applications, drawn or from a file. Nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from worker.training.networks import opened
from worker.training.networks.architectures import applications
from worker.training.process.failures import Failure

if TYPE_CHECKING:
    from app.spec.architectures.applications import Spec
    from app.spec.models import Backbone


def layers(architecture: Spec) -> tuple[Any, dict[str, tuple[str, Any]]]:
    """The network of keras.applications itself, with numbers, and its layers with numbers: {name: (the name that it is drawn by,
    layer)}."""
    assert architecture.size is not None, "a resolved spec has a size"
    whole = applications.whole(architecture, architecture.size)
    return whole, {name: leaf for name, leaf in opened.leaves(whole).items() if leaf[1].weights}


def load(whole: Any, path: str, spec: Backbone) -> None:
    """Reads a Keras file of weights, `.weights.h5` or the older `.h5`, into a network, layer by layer; counts and shapes must be equal.

    Raises:
        Failure: `weights_unavailable`: the file is not of this network.
    """
    expected = f"weights of {spec.applications} without its top"
    if spec.alpha != 1:
        expected += f" at width {spec.alpha:g}"
    try:
        whole.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        message = f"the file holds no {expected}: layers or shapes differ, or it is no Keras file of weights"
        raise Failure(
            "weights_unavailable", message, "give the file that ends in no_top.h5", "/source/weights"
        ) from error
    if not all(np.isfinite(keras.ops.convert_to_numpy(variable.value)).all() for variable in whole.weights):
        raise Failure("weights_unavailable", "the file holds numbers that are not finite", param="/source/weights")
