"""Batch spectral shrinkage against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from app.spec.faults import Invalid
from tests.worker.training.small import DIGIT, PICTURE, batch_source, compiled, network, stored
from worker.training.data import batches
from worker.training.fitting.loss_spec import LossSpec
from worker.training.networks import build
from worker.training.regularizers import About, bss

pytestmark = [pytest.mark.filterwarnings("ignore:__array__ implementation")]


def gradient(features: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        value, slope = jax.value_and_grad(lambda one: bss.penalty(one, k))(features)
        return float(value), np.asarray(slope)
    import tensorflow as tf

    x = tf.Variable(features)
    with tf.GradientTape() as tape:
        value = bss.penalty(x, k)
    return float(value), tape.gradient(value, x).numpy()


def test_the_smallest_of_a_diagonal() -> None:
    value, slope = gradient(np.diag([3.0, 2.0, 1.0]).astype(np.float32), 1)
    assert value == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(slope, np.diag([0, 0, 2.0]), atol=1e-5)


@pytest.mark.parametrize(("shape", "k"), [((7, 4), 1), ((4, 7), 2), ((5, 5), 5), ((3, 6), 9)])
def test_value_and_gradient_are_those_of_the_singular_values(shape: tuple[int, int], k: int) -> None:
    features = np.random.default_rng(shape).standard_normal(shape).astype(np.float32)
    value, slope = gradient(features, k)
    exact = features.astype(np.float64)

    def penalty(matrix: np.ndarray) -> float:
        return float((np.linalg.svd(matrix, compute_uv=False)[-k:] ** 2).sum())

    assert value == pytest.approx(penalty(exact), rel=1e-4)
    for place in np.ndindex(shape):
        shift = np.zeros(shape)
        shift[place] = 1e-5
        assert slope[place] == pytest.approx((penalty(exact + shift) - penalty(exact - shift)) / 2e-5, abs=1e-3)


def test_equal_singular_values_have_a_finite_gradient() -> None:
    """The gradient of a decomposition has none there; nothing dies where all features are 0 either."""
    value, slope = gradient(np.eye(4, dtype=np.float32), 2)
    assert value == pytest.approx(2.0, abs=1e-5)
    assert np.isfinite(slope).all()
    value, slope = gradient(np.zeros((4, 3), np.float32), 1)
    assert value == 0.0
    assert not slope.any()


@pytest.mark.parametrize("picture", [False, True])
def test_in_a_step_it_is_of_the_trunk_s_output_in_the_same_pass(picture: bool) -> None:
    arch = {"arch": "cnn", "filters": [3], "dense": 6} if picture else {"arch": "mlp", "units": [6]}
    whole = network([DIGIT], architecture=arch, shape=PICTURE) if picture else network([DIGIT], architecture=arch)
    data = batches.batch({"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)}, 0)
    features = build.keras_layers(whole).body.predict_on_batch(data[0]["d"])
    assert features.shape == (8, 6)
    loss_spec = LossSpec({"d": ["digit"]}, {"digit": DIGIT}, label_weight=0.0, regularizer=bss.Spec(alpha=0.5, k=6))
    made = compiled(whole, loss_spec, rate=0.01)
    logs = made.step(data)
    expected = 0.5 * float((np.linalg.svd(features, compute_uv=False) ** 2).sum())
    assert logs["bss"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert logs["loss"] == pytest.approx(logs["bss"])
    assert made.step(data)["bss"] < logs["bss"]  # the step followed its gradient through the trunk


def test_there_are_no_more_singular_values_than_rows_and_features() -> None:
    assert bss.resolve(bss.Spec(k=5), About("lora", 5, 64, "adam", 1e-3)).k == 5
    with pytest.raises(Invalid, match="5 singular values, not 6"):
        bss.resolve(bss.Spec(k=6), About("fine_tuning", 5, 64, "adam", 1e-3))
