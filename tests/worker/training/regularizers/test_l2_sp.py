"""L2-SP pulls the trunk back to its source, and the head to nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.spec.faults import Invalid
from tests.worker.training import small
from tests.worker.training.small import DIGIT, batch_source, compiled, network, same, stored
from worker.training.data import batches
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks.network import Network
from worker.training.regularizers import About, l2_sp

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

ARCH = {"arch": "mlp", "units": [6, 5]}
RATE = 0.1


def loss_spec(alpha: float, beta: float = 0.0, label_weight: float = 1.0) -> LossSpec:
    words = l2_sp.Spec(alpha=alpha, beta=beta)
    return LossSpec({"d": ["digit"]}, {"digit": DIGIT}, label_weight=label_weight, regularizer=words)


def moved(whole: Network, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    weights = {
        name: [array + rng.standard_normal(array.shape).astype(np.float32) for array in arrays]
        for name, arrays in whole.weights.items()
    }
    return replace(whole, weights=weights)


def begun(origin: Network, now: Network, words: LossSpec, optimizer: str = "sgd") -> Compiled:
    made = compiled(origin, words, optimizer, RATE)
    made.begin(origin=origin.weights)
    made.keras_layers.load(now.weights)
    return made


def one_batch(whole: Network) -> batches.Batch:
    return batches.batch({"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)}, 0)


def squares(arrays: dict[str, list[np.ndarray]], names: list[str]) -> float:
    return float(sum((array.astype(np.float64) ** 2).sum() for name in names for array in arrays[name]))


def test_it_is_nothing_at_the_source_and_half_alpha_times_the_squared_distance_elsewhere() -> None:
    origin = network([DIGIT], architecture=ARCH)
    now = moved(origin)
    away = {
        name: [a - b for a, b in zip(now.weights[name], origin.weights[name], strict=True)] for name in origin.weights
    }
    at = begun(origin, origin, loss_spec(0.3, 0.7)).step(one_batch(origin))
    assert at["l2_sp"] == 0.0
    there = begun(origin, now, loss_spec(0.3, 0.7)).step(one_batch(origin))
    assert there["l2_sp"] == pytest.approx(0.15 * squares(away, ["dense1", "dense2"]), rel=1e-5)
    assert there["l2_head"] == pytest.approx(0.35 * squares(now.weights, ["digit_logits"]), rel=1e-5)
    assert there["loss"] == pytest.approx(there["label_loss"] + there["l2_sp"] + there["l2_head"], rel=1e-5)


def test_without_data_a_step_of_sgd_shrinks_the_distance_by_rate_times_alpha() -> None:
    """lr .1, α 2: × .8 a step; and the head, plain L2 with β 5: × .5."""
    origin = network([DIGIT], architecture=ARCH)
    now = moved(origin)
    made = begun(origin, now, loss_spec(2.0, 5.0, label_weight=0.0))
    for count in (1, 2):
        made.step(one_batch(origin))
        after = made.keras_layers.read()
        for name in ("dense1", "dense2"):
            for w, source, start in zip(after[name], origin.weights[name], now.weights[name], strict=True):
                assert np.allclose(w - source, 0.8**count * (start - source), atol=1e-5)
        for w, start in zip(after["digit_logits"], now.weights["digit_logits"], strict=True):
            assert np.allclose(w, 0.5**count * start, atol=1e-5)


def test_against_a_quadratic_loss_it_settles_between_data_and_source() -> None:
    """(w − a)²/2 + α/2·(w − w₀)² has its least at (a + α·w₀)/(1 + α)."""
    import keras

    origin = network([DIGIT], architecture=ARCH)
    alpha, data = 3.0, 0.25
    made = compiled(origin, loss_spec(alpha, label_weight=0.0), rate=0.2)
    made.keras_layers.layers["dense1"].kernel.regularizer = lambda w: 0.5 * keras.ops.sum(keras.ops.square(w - data))
    made.begin(origin=origin.weights)
    for _ in range(40):
        made.step(one_batch(origin))
    expected = (data + alpha * origin.weights["dense1"][0]) / (1 + alpha)
    assert np.allclose(made.keras_layers.read()["dense1"][0], expected, atol=1e-5)


def test_frozen_layers_are_left_out_and_a_huge_pull_holds_the_trunk() -> None:
    origin = network([DIGIT], architecture=ARCH)
    frozen = compiled(origin, loss_spec(1.0), rate=RATE, frozen=["dense1"])
    assert len(frozen.learner.regularizer._pairs) == 2
    free, held = (begun(origin, origin, loss_spec(alpha)) for alpha in (0.0, 5.0))
    drift = []
    for made in (free, held):
        for number in range(30):
            made.step(batches.batch({"d": batch_source(origin, {"digit": stored(DIGIT, 16)}, 8)}, number))
        now = made.keras_layers.read()
        away = {name: [a - b for a, b in zip(now[name], origin.weights[name], strict=True)] for name in now}
        drift.append(squares(away, ["dense1", "dense2"]))
    assert drift[1] < 0.1 * drift[0]


def test_the_source_stays_the_reference_over_stages_and_over_a_stop(tmp_path: Path) -> None:
    whole = network([DIGIT], architecture=ARCH)
    fit_spec = FitSpec(loss_spec(0.5, 0.1), {"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)})
    phases = [Phase(6, 1e-2, frozenset({"dense1"})), Phase(8, 1e-2)]
    straight = small.fit(tmp_path / "a", whole, fit_spec, phases)
    assert same(small.stopped_and_continued(tmp_path / "b", whole, fit_spec, phases, (4, 9)).weights, straight.weights)
    assert not same(
        small.fit(tmp_path / "c", whole, replace(fit_spec, loss_spec=loss_spec(0.0, 0.1)), phases).weights,
        straight.weights,
    )
    pulled = FitSpec(
        loss_spec(3.0, 0.0, label_weight=0.0), fit_spec.batch_sources
    )  # no data: where it began is where it stays
    stayed = small.fit(tmp_path / "d", whole, pulled, phases)
    assert same(stayed.weights, whole.weights, tolerance=1e-6)


def about(strategy: str = "fine_tuning", optimizer: str = "adam", rate: float = 1e-3) -> About:
    return About(strategy, 5, 64, optimizer, rate)


def test_a_pull_that_would_diverge_is_refused() -> None:
    assert l2_sp.resolve(l2_sp.Spec(alpha=5000.0), about()).alpha == 5000.0
    with pytest.raises(Invalid) as caught:
        l2_sp.resolve(l2_sp.Spec(alpha=200.0, beta=300.0), about(optimizer="sgd", rate=0.01))
    assert [fault.pointer for fault in caught.value.faults] == ["/alpha", "/beta"]
    with pytest.raises(Invalid, match="nothing to pull back"):
        l2_sp.resolve(l2_sp.Spec(), about("lora"))
