"""What tables are scaled by, and that a kept model scales alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.spec import architectures
from app.spec.models import HeadSpec
from tests.worker.training.small import ODD, TABLE
from worker.training.data.inputs import scaling
from worker.training.kept import export
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def test_a_feature_that_hardly_varies_is_scaled_in_the_kept_model_as_in_training() -> None:
    spread = np.array([1.0, 1e-9, 9e-8, 2e-7, 0.0])
    inputs = (np.random.default_rng(0).standard_normal((40, 5)) * spread).astype(np.float32)
    data: Any = SimpleNamespace(table=SimpleNamespace(schema=SimpleNamespace(input=TABLE), inputs=inputs))
    fitted = scaling([(data, np.arange(40))])
    assert [std == 1.0 for std in fitted.std] == [False, True, True, False, True]
    made = Network(architectures.resolve("mlp"), TABLE, {"odd": ODD}, {"odd": HeadSpec()}, fitted, {})
    made.weights = initial(build.keras_layers(made), 0)
    kept = export.inference_model(made).get_layer("preprocessing")
    assert np.allclose(kept(inputs), fitted(inputs), rtol=1e-5, atol=1e-6)
