"""What a fit does with BatchNorm, against a loop in plain Keras that a user would write: kept as it is, or learning and following."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tests.worker.training.small import DIGIT, PICTURE, batch_source, compiled, network, same, stored
from worker.training.data import batches
from worker.training.fitting.loss_spec import LossSpec
from worker.training.networks.architectures import builder
from worker.training.networks.network import Network

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

RATE, STEPS = 0.05, 5
ARCHITECTURES = ["resnet-8", {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True}]


def inherited(architecture: Any) -> Network:
    """A network whose averages and variances are not those of its rows, as after other data."""
    made = network([DIGIT], architecture=architecture, shape=PICTURE)
    rng = np.random.default_rng(1)
    for arrays in made.weights.values():
        if len(arrays) == 4:  # scale, shift, average, variance
            arrays[:] = [rng.uniform(0.5, 1.5, array.shape).astype(np.float32) for array in arrays]
    return made


def by_hand(whole: Network, data: Any, *, frozen: bool) -> dict[str, list[np.ndarray]]:
    rows = keras.Input(PICTURE.shape)
    features = builder(whole.architecture)(whole.architecture, rows)
    model = keras.Model(rows, keras.layers.Dense(DIGIT.units, name="digit_logits")(features))
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(whole.weights[layer.name])
        if isinstance(layer, keras.layers.BatchNormalization) and frozen:
            layer.trainable = False
    model.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for step in range(STEPS):
        x, y = data.batch(step)
        model.train_on_batch(x, y["digit"])
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=["residual", "plain"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trainable"])
def test_a_fit_is_the_loop_that_one_writes_by_hand(architecture: Any, frozen: bool) -> None:
    whole = inherited(architecture)
    data = batch_source(whole, {"digit": stored(DIGIT, 40)}, 8)
    made = compiled(whole, LossSpec({"d": ["digit"]}, {"digit": DIGIT}), rate=RATE, norms=frozen)
    for step in range(STEPS):
        made.step(batches.batch({"d": data}, step))
    found, expected = made.keras_layers.read(), by_hand(whole, data, frozen=frozen)
    assert found.keys() == expected.keys()
    assert same(found, expected, tolerance=5e-7)  # the mean over labelled rows rounds its last bit in another place
    norms = [name for name, arrays in whole.weights.items() if len(arrays) == 4]
    assert norms
    for name in norms:
        assert all(np.array_equal(a, b) for a, b in zip(found[name], whole.weights[name], strict=True)) is frozen
