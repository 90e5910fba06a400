"""Learning rates by step, against the formulas as their authors wrote them, a step at a time."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from app import methods
from app.spec.faults import Invalid
from app.spec.training import OptimizerSpec, Schedule, TrainingSpec
from tests.app.builtin_lookup import BuiltIns
from tests.worker.training import small
from tests.worker.training.small import DIGIT, batch_source, network, same, stored
from worker.training.data import batches
from worker.training.fitting import learner, plan, schedules
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks import build

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def all_of(schedule: Schedule, highest: float, steps: int, warm_up: int = 0) -> list[float]:
    found: list[float] = schedules.rates(schedule, highest, steps, warm_up, np.arange(steps)).tolist()
    return found


def test_a_cosine_is_that_of_keras() -> None:
    theirs = keras.optimizers.schedules.CosineDecay(0.3, 57)
    assert all_of("cosine", 0.3, 57) == pytest.approx([float(theirs(step)) for step in range(57)], abs=1e-7)


def test_the_rate_falls_to_a_tenth_at_half_and_at_three_quarters_of_the_steps() -> None:
    found = all_of("step", 1.0, 64)
    assert found == pytest.approx([1.0] * 32 + [0.1] * 16 + [0.01] * 16)


@pytest.mark.parametrize("steps", [3, 10, 101])
def test_one_cycle_rises_and_falls_as_its_authors_have_it(steps: int) -> None:
    """A naive copy of what fastai and PyTorch say: two pieces, each a cosine between its ends."""
    highest, lowest, last = 0.5, 0.5 / 25, 0.5 / 25 / 1e4
    rise, end = 0.3 * steps - 1, steps - 1
    expected = []
    for step in range(steps):
        if step <= rise:
            begin, to, share = lowest, highest, step / rise
        else:
            begin, to, share = highest, last, (step - rise) / (end - rise)
        expected.append(to + (begin - to) / 2 * (1 + math.cos(math.pi * share)))
    found = all_of("one_cycle", highest, steps)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found[-1] == pytest.approx(last)
    assert max(found) <= highest


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_warm_up_rises_by_equal_parts_to_the_highest_rate(schedule: Schedule) -> None:
    found = all_of(schedule, 0.8, 40, 4)
    assert found[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert found[4] == pytest.approx(0.8)
    assert max(found) == pytest.approx(0.8)
    assert all_of(schedule, 0.8, 3, 7) == pytest.approx([0.8 / 3, 1.6 / 3, 0.8]), "a phase that is all warm-up"


def test_any_step_has_its_rate_without_those_before_it() -> None:
    for schedule in ("constant", "cosine", "step", "one_cycle"):
        whole = all_of(schedule, 1.0, 30, 0 if schedule == "one_cycle" else 3)
        some = schedules.rates(schedule, 1.0, 30, 0 if schedule == "one_cycle" else 3, np.array([29, 2, 11]))
        assert some.tolist() == [whole[29], whole[2], whole[11]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": "one_cycle", "warmup_epochs": 1}, "warm-up of its own"),
        ({"steps": 3, "optimizer": {"gradient_accumulation_steps": 4}}, "there would be no update"),
        ({"schedule": "linear"}, "'constant', 'cosine', 'step' or 'one_cycle'"),
        ({"warmup_epochs": -1}, "greater than or equal to 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingSpec.model_validate(given)


@pytest.mark.parametrize("training", [{"warmup_epochs": 10}, {"warmup_epochs": 3, "epochs": 3}])
def test_a_warm_up_as_long_as_the_training_is_refused_where_it_comes_in(training: dict[str, object]) -> None:
    body = {"kind": "transfer", "dataset": "wine", "source": {"train": {"dataset": "wine"}}, "training": training}
    with pytest.raises(Invalid) as refused:
        methods.check(body, BuiltIns())
    assert [fault.pointer for fault in refused.value.faults] == ["/training/warmup_epochs"]
    ends = {"dataset": "wine", "training": training}
    with pytest.raises(Invalid) as refused:
        methods.check({"kind": "transfer", "dataset": "wine", "source": {"train": ends}}, BuiltIns())
    assert [fault.pointer for fault in refused.value.faults] == ["/source/train/training/warmup_epochs"]


def test_phases_too_short_for_their_words_are_told() -> None:
    training = TrainingSpec.model_validate(
        {"epochs": 9, "warmup_epochs": 2, "optimizer": {"gradient_accumulation_steps": 6}}
    )
    assert not plan.doubts([Phase(30, 0.1), Phase(0, 0.1)], training, 10)
    assert [*plan.doubts([Phase(30, 0.1), Phase(20, 0.1)], training, 10)] == ["phase_all_warm_up"]
    assert [*plan.doubts([Phase(5, 0.1)], training, 10)] == ["phase_all_warm_up", "phase_without_update"]
    assert [*plan.doubts([Phase(30, 0.1)], training, 5)] == ["phase_without_update"], "patience counts epochs"
    assert not plan.doubts([Phase(1, 0.1)], TrainingSpec(), 1)


def test_a_cycle_of_one_step_is_at_the_full_rate() -> None:
    assert all_of("one_cycle", 0.5, 1) == [0.5]


@pytest.mark.slow
def test_a_fit_s_log_has_the_rates_of_its_phases_and_its_steps_use_them(tmp_path: Path) -> None:
    whole = network([DIGIT])
    fit_spec = FitSpec(
        LossSpec({"d": ["digit"]}, {"digit": DIGIT}),
        {"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 4)},
        epoch=4,
    )
    training = TrainingSpec(schedule="cosine", warmup_epochs=1.5)
    loop = small.fit_loop(tmp_path)
    trained = loop.fit("target", whole, fit_spec, [Phase(32, 0.1), Phase(16, 0.01)], training, 0)
    told = dict(loop.metric_log.series()["learning_rate"])
    expected = [*all_of("cosine", 0.1, 32, 6), *all_of("cosine", 0.01, 16, 6)]
    assert told == {step: expected[step - 1] for step in told}
    assert len(told) >= 3
    by_hand = Compiled(
        build.keras_layers(whole),
        fit_spec.loss_spec,
        lambda: learner.optimizer(OptimizerSpec(), 1.0),
        frozenset(),
        False,
    )
    for begun, end in ((0, 32), (32, 48)):
        by_hand.begin()
        for step in range(begun, end):
            by_hand._rates = lambda numbers, step=step: np.full(len(numbers), expected[step])  # type: ignore[misc]
            by_hand.step(batches.batch(fit_spec.batch_sources, step))
    assert same(by_hand.keras_layers.read(), trained.network.weights)


def test_three_accumulated_steps_are_one_of_the_three_batches_together() -> None:
    whole = network([DIGIT])
    source = {"d": batch_source(whole, {"digit": stored(DIGIT, 24)}, 4)}
    large = {"d": batch_source(whole, {"digit": stored(DIGIT, 24)}, 12)}
    found = []
    for made, every, size in ((source, 3, 2), (large, 1, 0)):
        words = OptimizerSpec(name="sgd", gradient_accumulation_steps=every)
        one = Compiled(
            build.keras_layers(whole),
            LossSpec({"d": ["digit"]}, {"digit": DIGIT}),
            lambda words=words: learner.optimizer(words, 0.1),  # type: ignore[misc]
            frozenset(),
            False,
        )
        one.begin()
        for step in range(size + 1):
            one.step(batches.batch(made, step))
        found.append(one.keras_layers.read())
    for name, arrays in found[0].items():
        for mine, theirs in zip(arrays, found[1][name], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)
