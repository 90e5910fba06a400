"""Every weighting inside real steps and fits: what is logged adds up, epochs are told, and a stopped fit goes on bit by bit."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.registry import modules
from app.spec.training import TrainingSpec
from tests.worker.training import small
from tests.worker.training.fitting.weighted import TASKS, fit_spec_of, loss_spec_of
from tests.worker.training.small import DIGIT, SIZE, Quiet, batch_source, compiled, network, same, stored
from worker.reports import Metrics
from worker.training.data import batches
from worker.training.fitting.plan import Phase
from worker.training.networks import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
]

NAMES = sorted(modules("weighting"))
DROPPING = {"arch": "mlp", "units": [8], "dropout": 0.3}


@pytest.mark.parametrize("name", NAMES)
def test_weighted_losses_add_up_to_the_total(name: str) -> None:
    whole = network(TASKS)
    columns = {task.name: stored(task, 8) for task in TASKS}
    made = compiled(whole, loss_spec_of(name, *TASKS), rate=1e-3)
    made.start([batches.batch({"d": batch_source(whole, columns, 8)}, 0)])
    for step in range(4):
        absent = step % 2 == 1
        some = {**columns, "odd": np.full(8, -1, np.int32)} if absent else columns
        logs = made.step(batches.batch({"d": batch_source(whole, some, 8)}, step))
        parts = sum(logs[f"{task.name}_weighted_loss"] for task in TASKS)
        assert logs["loss"] == pytest.approx(parts, rel=1e-6, abs=1e-5)
        assert np.isnan(logs["odd_loss"]) == absent
        assert (logs["odd_weighted_loss"] == 0) == absent
        assert (logs["odd_weight"] == 0) == absent
        made.end_epoch(step)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_without_labels_is_as_if_it_were_not_there(name: str) -> None:
    """One SGD step: the trunk, the other heads and the state are those of the K − 1 tasks."""
    whole = network(TASKS)
    full = {task.name: stored(task, 8) for task in TASKS}
    results = []
    for tasks in (TASKS, [DIGIT, SIZE]):
        made = compiled(whole, loss_spec_of(name, *tasks), rate=1e-2)
        if name == "fixed":
            made.learner.weighting.task_weights = (0.5, 1.0, 1.5)[:: 2 if len(tasks) == 2 else 1]
        first = {"digit": 1.3, "odd": 0.7, "size": 1.2}
        made.learner.weighting.start(first)
        made.learner.weighting.draw = lambda seed, number: None  # rlw draws for K tasks: here all draws are 0
        columns = (
            {**full, "odd": np.full(8, -1, np.int32)} if len(tasks) == 3 else {k: full[k] for k in ("digit", "size")}
        )
        before = [small_state(variable) for variable in made.learner.weighting.variables]
        made.step(batches.batch({"d": batch_source(whole, columns, 8)}, 0))
        results.append(
            {layer: arrays for layer, arrays in made.keras_layers.read().items() if not layer.startswith("odd")}
        )
        if len(tasks) == 3:
            for old, variable in zip(before, made.learner.weighting.variables, strict=True):
                assert small_state(variable)[1] == old[1], variable.path
    assert same(*results, tolerance=1e-6)
    assert not same({"d": results[0]["dense1"]}, {"d": whole.weights["dense1"]}, tolerance=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_task_alone_takes_the_plain_step_but_under_logs_and_cagrad(name: str) -> None:
    """One SGD step. uncertainty begins at 1/(2L), stch warms up at 1/L, cagrad lengthens the trunk's by (1 + c)/(1 + c²)."""
    whole, rate = network([DIGIT]), 1e-2
    batch = batches.batch({"d": batch_source(whole, {"digit": stored(DIGIT, 8)}, 8)}, 0)
    loss_spec = loss_spec_of(name, DIGIT)
    moved = []
    for one in (replace(loss_spec, task_weights={"digit": 1.0}), replace(loss_spec, weighting=None)):
        made = compiled(whole, one, rate=rate)
        made.start([batch])
        loss = made.step(batch)["loss" if one.weighting is None else "digit_loss"]
        moved.append({layer: arrays[0] - whole.weights[layer][0] for layer, arrays in made.keras_layers.read().items()})
    factor = {"uncertainty": 0.5 / loss, "stch": 1 / loss, "cagrad": 1.5 / 1.25}.get(name, 1.0)
    for layer, found in moved[0].items():
        head = layer in whole.head_layers["digit"] and name == "cagrad"
        expected = moved[1][layer] * (1.0 if head else factor)
        assert np.abs(expected).max() > 1e-4
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-6), layer


def small_state(variable: Any) -> np.ndarray:
    return np.asarray(variable).copy()


class After(threading.Event):
    """Asks to stop at the n-th look."""

    def __init__(self, looks: int):
        super().__init__()
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_that_was_stopped_within_an_epoch_ends_bit_for_bit_the_same(name: str, tmp_path: Path) -> None:
    whole = network(TASKS, architecture=DROPPING)
    words = {"warmup_epochs": 2} if name == "stch" else {}
    fit_spec = fit_spec_of(whole, loss_spec_of(name, *TASKS, **words))
    phases, training = [Phase(18, 1e-2)], TrainingSpec()

    first = small.fit_loop(tmp_path)

    def run(home: Path, stop: threading.Event | None = None) -> tuple[Any, list[Any]]:
        told = Quiet()
        fit_loop = small.fit_loop(home, told, stop, first)
        fit_loop.most_steps = fit_loop.most_steps if stop is None else 1  # it counts the looks
        return fit_loop.fit("target", whole, fit_spec, phases, training, 5), [
            one for one in told.reports if isinstance(one, Metrics)
        ]

    straight, told = run(tmp_path / "a")
    assert run(tmp_path / "b", After(10))[0].stopped
    resumed, again = run(tmp_path / "b")
    assert same(straight.network.weights, resumed.network.weights)
    assert told[-1].values == again[-1].values
    assert straight.network.weights["dense1"][0].shape == (5, 8)


def test_epochs_are_told_with_the_mean_losses_of_their_steps(tmp_path: Path) -> None:
    whole = network(TASKS)
    fit_spec = fit_spec_of(whole, loss_spec_of("dwa", *TASKS))
    assert fit_spec.epoch_steps == 4
    made = small.fit_loop(tmp_path)
    made.model_cache.keras_layers(whole)
    known = made.model_cache.compiled(whole, fit_spec, Phase(9, 1e-2), TrainingSpec())
    epochs, logged = [], []
    heard, steps = known.learner.weighting.on_epoch_end, known.steps
    known.learner.weighting.on_epoch_end = lambda epoch, means: (epochs.append((epoch, means)), heard(epoch, means))
    known.steps = lambda made: ((logged.append(logs), logs)[1] for logs in steps(made))
    made.fit("target", whole, fit_spec, [Phase(9, 1e-2)], TrainingSpec(), 0)
    assert [epoch for epoch, _ in epochs] == [0, 1]
    for epoch, means in epochs:
        for task in TASKS:
            values = [logs[f"{task.name}_loss"] for logs in logged[4 * epoch : 4 * epoch + 4]]
            assert means[task.name] == pytest.approx(np.nanmean(values), abs=1e-6)


def test_famos_two_looks_see_the_update_alone() -> None:
    """With dropout, a step of rate 0 gains nothing, so the weights stay; and what it looks at is the step's own batch."""
    whole = network(TASKS, architecture=DROPPING)
    data = {"d": batch_source(whole, {task.name: stored(task, 8) for task in TASKS}, 8)}
    still = compiled(whole, loss_spec_of("famo", *TASKS), rate=1e-12)
    still.step(batches.batch(data, 0))
    assert small_state(still.learner.weighting.xi) == pytest.approx([0, 0, 0], abs=1e-9)
    moving, seen = compiled(whole, loss_spec_of("famo", *TASKS), rate=0.1), []
    heard = moving.learner.weighting.after_step
    moving.learner.weighting.after_step = lambda *given: (seen.append(given), heard(*given))
    batch = batches.batch(data, 1)
    keras_layers = build.keras_layers(whole)
    moving.step(batch)
    ((before, after, present),) = seen
    logits = keras_layers.forward.predict_on_batch(batch[0]["d"])
    from worker.training.tasks import heads

    assert before == pytest.approx(
        [float(heads.loss(task, batch[1], logits[task.name])[0]) for task in TASKS], abs=1e-5
    )
    keras_layers.load(moving.keras_layers.read())
    logits = keras_layers.forward.predict_on_batch(batch[0]["d"])
    assert after == pytest.approx([float(heads.loss(task, batch[1], logits[task.name])[0]) for task in TASKS], abs=1e-5)
    assert present.tolist() == [True] * 3
    assert np.abs(small_state(moving.learner.weighting.xi)).max() > 1e-3


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
def test_weights_of_losses_are_not_decayed(name: str) -> None:
    """They begin where their gradient is 0, or are pulled by it alone: the same with a decay of the network's weights as without."""
    states = []
    for decay in (None, 0.1):
        whole = network(TASKS)
        data = batch_source(whole, {task.name: stored(task, 8) for task in TASKS}, 8)
        made = compiled(whole, loss_spec_of(name, *TASKS), rate=0.01, weight_decay=decay)
        made.start([batches.batch({"d": data}, 0)])
        made.learner.weighting.variables[0].assign([5.0] * len(TASKS))
        made.step(batches.batch({"d": data}, 0))
        states.append(np.array(made.learner.weighting.variables[0]))
    assert np.array_equal(*states)


def test_each_run_seed_draws_its_own_random_weights() -> None:
    whole = network(TASKS)
    made = compiled(whole, loss_spec_of("rlw", *TASKS))
    data = {"d": batch_source(whole, {task.name: stored(task, 8) for task in TASKS}, 8)}
    drawn = []
    for seed, step in ((0, 0), (1, 0), (0, 1), (0, 0)):
        made.begin(seed, step)
        logs = made.step(batches.batch(data, 0))
        drawn.append([logs[f"{task.name}_weight"] for task in TASKS])
    assert sum(drawn[0]) == pytest.approx(3)
    assert drawn[0] == pytest.approx(drawn[3])
    assert drawn[0] != pytest.approx(drawn[1], abs=1e-3)
    assert drawn[0] != pytest.approx(drawn[2], abs=1e-3)
