"""A user's model, taken apart into a graph and built again by us, answers as it did in plain Keras."""

from __future__ import annotations

from math import prod
from typing import Any

import keras
import numpy as np
import pytest

from app.spec.data import InputSchema
from app.spec.models import HeadSpec
from tests.worker.training.networks import corpus, plain_graph
from tests.worker.training.small import DIGIT
from worker.training.data.scaling import Scaling
from worker.training.networks import build
from worker.training.networks.build import KerasLayers
from worker.training.networks.initial import initial
from worker.training.networks.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def numbered(model: Any, seed: int = 0) -> Any:
    """The model with numbers of all kinds: variances positive, nothing 0 or 1. Whole numbers and what a layer was adapted to stay."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        adapted = "normalization" in variable.path and variable.name in ("mean", "variance", "count")
        if variable.dtype != "float32" or adapted:
            continue
        drawn = rng.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(drawn) + 0.5 if "variance" in variable.name else drawn)
    return model


def inputs_of(model: Any, n: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {}
    for tensor in model.inputs:
        shape = (n, *tensor.shape[1:])
        found[tensor.name] = (
            rng.integers(0, 8, shape) if "int" in tensor.dtype else rng.normal(0, 1, shape).astype(np.float32)
        )
    return found


def built(model: Any, **changes: Any) -> tuple[Network, KerasLayers]:
    """A network whose trunk is the model, with its arrays."""
    spec, arrays = plain_graph.of(model, "table")
    shape = [sum(prod(given.shape) for given in spec.given)]
    net = Network(
        spec, InputSchema(kind="table", shape=shape), {"digit": DIGIT}, {"digit": HeadSpec()},
        Scaling((0.0,) * shape[0], (1.0,) * shape[0]), {}, **changes,
    )  # fmt: skip
    keras_layers = build.keras_layers(net)
    net.weights = initial(keras_layers, 0)
    net.weights |= {name: numbers for name, numbers in arrays.items() if name in keras_layers.layers}
    keras_layers.load(net.weights)
    return net, keras_layers


def outputs(model: Any, given: dict[str, np.ndarray]) -> np.ndarray:
    ordered = [given[tensor.name] for tensor in model.inputs]
    asked = (
        given
        if isinstance(getattr(model, "_inputs_struct", None), dict)
        else ordered
        if len(ordered) > 1
        else ordered[0]
    )
    return np.asarray(keras.ops.convert_to_numpy(model(asked, training=False))).astype(np.float32)


def flat(given: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([given[name].reshape(len(given[name]), -1) for name in sorted(given)], axis=1).astype(
        np.float32
    )


@pytest.mark.parametrize("name", list(corpus.MODELS))
def test_a_model_built_again_answers_as_it_did(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = numbered(corpus.MODELS[name]())
    given = inputs_of(model)
    expected = outputs(model, given)
    net, keras_layers = built(model)
    assert net.trace.parameters == model.count_params()
    found = np.asarray(keras_layers.body(flat(given), training=False))
    tolerance = 1e-6 if name != "half_precision" else 0.02
    expected = expected.reshape(len(expected), -1)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
