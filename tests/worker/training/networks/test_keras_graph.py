"""A user's model, taken apart into a graph and built again by us, answers as it did in plain Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.worker.training.networks import corpus
from tests.worker.training.networks.users_models import *
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


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
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
