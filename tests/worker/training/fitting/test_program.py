"""Many steps in one call have the bits of a call for each step, however they are cut; and end where a loss is not finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from app.spec.data import InputSchema
from app.spec.registry import modules
from app.spec.training import OptimizerSpec
from tests.worker.training.fitting.weighted import TASKS, loss_spec_of
from tests.worker.training.small import DIGIT, PICTURE, TABLE, batch_source, network, stored
from worker.training.data import batches
from worker.training.data.batches import Batch, BatchSource, Sampler, Some
from worker.training.fitting import learner, program, schedules
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.program import XLA_STEPS, Driver, Pace
from worker.training.methods._annealing import Factors
from worker.training.networks import build
from worker.training.networks.network import Network
from worker.training.objectives import logits

pytestmark = [
    pytest.mark.slow,
    # Keras 3.15 converts TensorFlow's variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a program is TensorFlow's"),
]

STEPS = 24
RATES = partial(schedules.rates, "cosine", 1e-2, STEPS, 5)
CUTS = ([STEPS], [1] * STEPS, [5, 1, 11, 7])
MLP = {"arch": "mlp", "units": [8], "batch_norm": True, "dropout": 0.3}
CNN = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.5}

Made = tuple[Compiled, Batch]


def made(
    whole: Network,
    loss_spec: LossSpec,
    source: BatchSource,
    optimizer: Callable[[], Any] | None = None,
    driver: Driver = "graph",
) -> Made:
    def usual() -> Any:
        words = OptimizerSpec(name="adamw", weight_decay=0.01, global_clipnorm=0.5)
        return learner.optimizer(words, 1e-2, whole.precision)

    one = Compiled(build.keras_layers(whole), loss_spec, optimizer or usual, frozenset(), norms=False, driver=driver)
    one.begin(0, rates=RATES)
    return one, batches.several({"d": source}, 0, STEPS)


def some(given: Batch, begin: int, end: int) -> Batch:
    x, y = given
    return {name: each[begin:end] for name, each in x.items()}, {name: each[begin:end] for name, each in y.items()}


def bytes_of(given: Batch) -> int:
    return sum(each[0].nbytes for each in given[0].values())


def plain(precision: str = "float32") -> Made:
    whole = replace(network([DIGIT], architecture=CNN, shape=PICTURE), precision=precision)
    column = stored(DIGIT, 40)
    column[::3] = -1
    return made(whole, LossSpec({"d": ["digit"]}, {"digit": DIGIT}), batch_source(whole, {"digit": column}, 6))


def accumulated(driver: Driver = "graph") -> Made:
    """An update for every three steps; the last call may end between two."""
    whole = network([DIGIT], architecture=MLP, shape=TABLE)
    words = OptimizerSpec(name="adam", gradient_accumulation_steps=3, global_clipnorm=0.1)
    source = batch_source(whole, {"digit": stored(DIGIT, 40)}, 6)
    loss_spec = LossSpec({"d": ["digit"]}, {"digit": DIGIT})
    return made(whole, loss_spec, source, lambda: learner.optimizer(words, 1e-2), driver)


def taught() -> Made:
    """By a cached teacher, at weights that change by epoch."""
    whole = network([DIGIT], architecture=CNN, shape=PICTURE)
    source = batch_source(whole, {"digit": stored(DIGIT, 40)}, 6)
    outputs = np.random.default_rng(1).standard_normal((40, DIGIT.units)).astype(np.float32)
    source.cached["digit/teacher/0"] = Some(np.arange(40), outputs, 40)
    objectives = [logits.Spec(temperature=4.0)]
    source.timed.append(Factors("digit", objectives, "linear_anneal", STEPS, source.steps_per_epoch))
    loss_spec = LossSpec(
        {"d": ["digit"]}, {"digit": DIGIT}, objectives={"digit": objectives}, teachers={"digit": (1.0,)}
    )
    return made(whole, loss_spec, source)


def weighted(name: str, driver: Driver = "graph") -> Made:
    """Tasks with few labels: in most batches one has none."""
    whole = network(TASKS, architecture=MLP, shape=TABLE)
    columns = {task.name: stored(task, 40) for task in TASKS}
    for name_, column in columns.items():
        column[np.random.default_rng(len(name_)).random(40) < 0.8] = np.nan if column.dtype.kind == "f" else -1
    one = made(whole, loss_spec_of(name, *TASKS), batch_source(whole, columns, 4), driver=driver)
    one[0].learner.weighting.start(dict.fromkeys(columns, 1.0))
    return one


CASES: dict[str, Callable[[], Made]] = {
    "plain": plain,
    "half precision": lambda: plain("mixed_float16"),
    "accumulation": accumulated,
    "taught": taught,
    **{
        name: (lambda name=name: weighted(name))  # type: ignore[misc]
        for name in ("equal", "fixed", "uncertainty", "rlw", "imtl_l", "gls", "stch", "dwa", "pcgrad", "cagrad", "mgda")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_steps_in_one_call_have_the_bits_of_a_call_for_each(case: str) -> None:
    one, given = CASES[case]()
    rest = one.state()
    assert one.takes_many(bytes_of(given))
    lent, one._program = one._program, None
    expected = list(one.steps(given))
    ended = one.state()
    if one.learner.weighting is not None:
        assert any(np.isnan(list(logs.values())).any() for logs in expected), "a task is absent from some batch"
    assert len({logs["loss"] for logs in expected}) > STEPS / 2
    one._program = lent
    for cut in CUTS:
        one.begin(0, rates=RATES)
        one.restore(rest)
        found, at = list[dict[str, float]](), 0
        for count in cut:
            found += one.steps(some(given, at, at + count))
            at += count
        np.testing.assert_equal(found, expected)
        for mine, theirs in zip(one.state(), ended, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def table(precision: str = "float32", optimizer: Callable[[], Any] | None = None, driver: Driver = "xla") -> Made:
    plain_units = {**MLP, "dropout": 0.0} if optimizer is not None else MLP
    whole = replace(network([DIGIT], architecture=plain_units, shape=TABLE), precision=precision)
    column = stored(DIGIT, 40)
    column[::3] = -1
    source = batch_source(whole, {"digit": column}, 6)
    return made(whole, LossSpec({"d": ["digit"]}, {"digit": DIGIT}), source, optimizer, driver)


COMPILED: dict[str, Callable[[], Made]] = {
    "plain": table,
    "half precision": lambda: table("mixed_float16"),
    "accumulation": lambda: accumulated("xla"),
    "uncertainty": lambda: weighted("uncertainty", "xla"),
    "rlw": lambda: weighted("rlw", "xla"),
}


@pytest.mark.parametrize("case", COMPILED)
def test_steps_compiled_by_xla_have_the_same_bits_however_they_are_cut(case: str) -> None:
    one, given = COMPILED[case]()
    rest = one.state()
    expected = list(one.steps(given))
    ended = one.state()
    assert len({logs["loss"] for logs in expected}) > STEPS / 2
    anew, _ = COMPILED[case]()  # compiled again, as in another process
    for again, cut in ((anew, CUTS[1]), (one, CUTS[2])):
        again.begin(0, rates=RATES)
        again.restore(rest)
        found, at = list[dict[str, float]](), 0
        for count in cut:
            again._number = at
            found += again.steps(some(given, at, at + count))
            at += count
        np.testing.assert_equal(found, expected)
        for mine, theirs in zip(again.state(), ended, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_xla_computes_what_a_graph_does() -> None:
    words = OptimizerSpec(name="sgd", momentum=0.9)
    (one, given), (other, _) = (
        table("float32", lambda: learner.optimizer(words, 1e-2), how) for how in ("xla", "graph")
    )  # type: ignore[arg-type]
    other.restore(one.state())
    mine, theirs = list(one.steps(given)), list(other.steps(given))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-4)
    for a, b in zip(one.state(), other.state(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_call_compiled_by_xla_ends_behind_the_step_whose_loss_is_not_finite() -> None:
    one, given = table()
    given[1]["digit/labelled"][7] = np.nan
    logs = list(one.steps(given))
    assert [bool(np.isfinite(each["loss"])) for each in logs] == [True] * 7 + [False]


def test_the_driver_follows_from_the_words_of_a_fit_alone() -> None:
    def operations(architecture: dict[str, Any], shape: InputSchema = TABLE) -> list[Any]:
        made: list[Any] = build.keras_layers(
            network([DIGIT], architecture=architecture, shape=shape)
        ).forward.operations
        return made

    dense, dropped, folded = operations({**MLP, "dropout": 0.0}), operations(MLP), operations(CNN, PICTURE)
    one = LossSpec({"d": ["digit"]}, {"digit": DIGIT})
    assert program.driver(dense, one, XLA_STEPS) == "xla"
    assert program.driver(dense, one, XLA_STEPS - 1) == "graph"
    assert program.driver(folded, one, XLA_STEPS) == program.driver(dropped, one, XLA_STEPS) == "graph"
    assert program.driver(dense, loss_spec_of("uncertainty", *TASKS), XLA_STEPS) == "xla"
    assert program.driver(dense, loss_spec_of("pcgrad", *TASKS), XLA_STEPS) == "graph"


def test_a_call_ends_behind_the_step_whose_loss_is_not_finite() -> None:
    one, given = plain()
    given[1]["digit/labelled"][7] = np.nan
    rest = one.state()
    logs = list(one.steps(given))
    assert len(logs) == 8
    assert [bool(np.isfinite(each["loss"])) for each in logs] == [True] * 7 + [False]
    after = one.state()
    one.begin(0, rates=RATES)
    one.restore(rest)
    np.testing.assert_equal(list(one.steps(some(given, 0, 8))), logs)
    for mine, theirs in zip(one.state(), after, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_keeps_state_of_gradients_and_large_batches_come_a_step_at_a_time() -> None:
    one, given = weighted("gradnorm")
    assert not one.takes_many(bytes_of(given))
    assert len(list(one.steps(some(given, 0, 3)))) == 3
    two, given = plain()
    assert two.takes_many(bytes_of(given))
    assert not two.takes_many(batches.AHEAD_BYTES)


def test_what_a_weighting_does_around_each_step_in_its_own_way_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[tuple[int, int]]()

    class Counting(modules("weighting")["equal"].Weighting):  # type: ignore[misc]
        def before_step(self, seed: int, number: int) -> None:
            told.append((seed, number))

    monkeypatch.setattr(modules("weighting")["equal"], "Weighting", Counting)
    one, given = weighted("equal")
    assert not one.takes_many(bytes_of(given))
    assert len(list(one.steps(some(given, 0, 4)))) == 4
    assert told == [(0, number) for number in range(4)]


def test_several_batches_are_those_of_each_step() -> None:
    """Through passes that end within a batch, of rows that are labelled and not, by a teacher and by the step."""
    one = network([DIGIT], architecture=CNN, shape=PICTURE)
    source = batch_source(one, {"digit": stored(DIGIT, 40)}, 6)
    source.samplers.append(Sampler(np.arange(7), 3, 1, "others"))
    source.cached["digit/teacher/0"] = Some(np.arange(40), np.random.default_rng(1).standard_normal((40, 4)), 40)
    source.timed.append(lambda step: {"digit/factor/0": np.asarray(step, np.float32)})
    x, y = batches.several({"d": source}, 3, 20)
    assert x["d"].shape == (20, 9, *one.input.shape)
    for number in range(20):
        (alone, labels), (ours, told) = batches.batch({"d": source}, 3 + number), batches.nth((x, y), number)
        np.testing.assert_array_equal(ours["d"], alone["d"])
        assert set(told) == set(labels)
        for name, values in labels.items():
            np.testing.assert_array_equal(told[name], values)
            assert told[name].dtype == np.asarray(values).dtype


def test_the_pace_is_what_fits_into_half_a_second_and_never_passes_what_is_due() -> None:
    pace, said = Pace(64), []
    for seconds in (0.8, 0.004, *[0.002] * 8):
        count = pace.steps(40)
        said.append(count)
        pace.took(count, seconds if count == 1 else count * seconds)
    assert said == [1, 1, 2, 4, 8, 16, 32, 40, 40, 40]
    slow = Pace(64)
    for _ in range(5):
        slow.took(slow.steps(100), 0.3)
    assert slow.steps(100) == 1
