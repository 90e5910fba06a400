"""Each layer at a rate of its own, exactly."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.training import OptimizerSpec
from tests.worker.training import small
from tests.worker.training.small import DIGIT, batch_source, network, same, stored
from worker.training.data import batches
from worker.training.fitting import learner, rates, schedules
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks import build
from worker.training.networks.network import Network

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

DEEP = {"arch": "mlp", "units": [6, 5, 4]}
FACTORS = {"dense1": 2.6**-3, "dense2": 2.6**-2, "dense3": 2.6**-1, "digit_logits": 1.0}


def loss_spec() -> LossSpec:
    return LossSpec({"d": ["digit"]}, {"digit": DIGIT})


def patterns(factors: dict[str, float]) -> dict[str, float]:
    return {rates.pattern(name): factor for name, factor in factors.items()}


def step(
    whole: Network, factors: dict[str, float] | None, steps: int = 1, **options: Any
) -> dict[str, list[np.ndarray]]:
    words = OptimizerSpec(**options)
    made = Compiled(
        build.keras_layers(whole),
        loss_spec(),
        lambda: learner.optimizer(words, 0.1, factors=patterns(factors) if factors else None),
        frozenset(),
        False,
    )
    made.begin(rates=partial(schedules.rates, "cosine", 0.1, 10, 0))
    for number in range(steps):
        made.step(batches.batch({"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)}, number))
    return made.keras_layers.read()


OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    {"name": "adam", "global_clipnorm": 0.05},
    {"name": "adamw", "weight_decay": 0.1},
    {"name": "rmsprop", "momentum": 0.5},
]


@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
def test_one_step_moves_each_layer_by_its_factor_of_the_plain_step(options: dict[str, Any]) -> None:
    """SGD: Δθ = −(lr/2.6^depth)·g. For all: the first step's update, decay included, is linear in the rate."""
    whole = network([DIGIT], architecture=DEEP)
    plain, scaled = step(whole, None, **options), step(whole, FACTORS, **options)
    for name, before in whole.weights.items():
        for start, one, other in zip(before, plain[name], scaled[name], strict=True):
            assert np.allclose(other - start, FACTORS[name] * (one - start), rtol=1e-4, atol=1e-7), name
            assert (one - start).any()


@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
def test_factors_of_one_are_the_plain_optimizer_bit_by_bit(options: dict[str, Any]) -> None:
    whole = network([DIGIT], architecture=DEEP)
    assert same(step(whole, None, 5, **options), step(whole, dict.fromkeys(FACTORS, 1.0), 5, **options))


def test_all_gradients_are_clipped_by_one_norm() -> None:
    """Not layer by layer, as one optimizer for each would do."""
    whole = network([DIGIT], architecture=DEEP)
    clipped = step(whole, FACTORS, name="sgd", global_clipnorm=0.01)
    moved = [
        (now - start) / (-0.1 * FACTORS[name])
        for name, before in whole.weights.items()
        for start, now in zip(before, clipped[name], strict=True)
    ]
    assert np.sqrt(sum(float((one**2).sum()) for one in moved)) == pytest.approx(0.01, rel=1e-3)


def test_each_pattern_matches_and_each_variable_is_matched_once() -> None:
    paths = ["a/kernel", "a/bias", "ab/kernel"]
    assert rates.factors_of(paths, {rates.pattern("a"): 0.5, rates.pattern("ab"): 2.0}) == (0.5, 0.5, 2.0)
    with pytest.raises(ValueError, match=r"'c/.\+' matches no trained variable"):
        rates.factors_of(paths, {"a.*/.+": 1.0, "c/.+": 1.0})
    with pytest.raises(ValueError, match="ab/kernel matches 0 patterns"):
        rates.factors_of(paths, {"a/.+": 1.0})
    with pytest.raises(ValueError, match="a/bias matches 2 patterns"):
        rates.factors_of(paths, {"a.*/.+": 1.0, "a/.+": 1.0})
    whole = network([DIGIT], architecture=DEEP)
    with pytest.raises(ValueError, match="digit_logits/kernel matches 0 patterns"):
        step(whole, {name: 1.0 for name in FACTORS if name != "digit_logits"})


def test_a_fit_with_rates_that_was_stopped_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    whole = network([DIGIT], architecture=DEEP)
    fit_spec = FitSpec(loss_spec(), {"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)})
    head = {"digit_logits": 1.0, "dense3": 0.4}
    phases = [
        Phase(8, 1e-2, frozenset({"dense1", "dense2"}), factors=patterns(head)),
        Phase(8, 1e-2, factors=patterns(FACTORS)),
    ]
    straight = small.fit(tmp_path / "a", whole, fit_spec, phases)
    assert same(small.stopped_and_continued(tmp_path / "b", whole, fit_spec, phases, (5, 11)).weights, straight.weights)
    assert not same({"d": straight.weights["dense1"]}, {"d": whole.weights["dense1"]})
