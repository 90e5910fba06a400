"""Both arms of a pair differ in nothing but the method: the same rows, the same beginning, the same order, whatever the kind of job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data as datasets
from tests.worker.training.small import same
from tests.worker.training.watched import Stage, Watched, hashes, order, train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

TINY = {"arch": "cnn", "filters": [2, 3], "dense": 4, "batch_norm": True, "dropout": 0.3}
SEED, SEEDS, ROWS = 5, 2, 60


STAGE = {
    "train": {"dataset": "digits", "architecture": TINY, "limit_train_examples": 40, "training": {"steps": 2}},
}
COMMON: dict[str, Any] = {
    "dataset": "digits",
    "limit_train_examples": ROWS,
    "training": {"steps": 2, "batch_size": 16, "seed": SEED, "augmentation": [{"type": "noise"}]},
    "control": {"seeds": SEEDS},
}
MULTITASK = {**COMMON, "kind": "multitask", "trunk": TINY}
DISTILLATION = {**COMMON, "kind": "distillation", "student": TINY, "teacher": STAGE}


@dataclass(frozen=True)
class Case:
    """`before`: the stage before the arms. `controls`: what follows `control/K`, a stage for each task where they learn alone."""

    body: dict[str, Any]
    before: str | None = None
    controls: tuple[str, ...] = ("",)


CASES = {
    "transfer": Case({**COMMON, "kind": "transfer", "target": "odd", "source": STAGE}, "source"),
    "multitask": Case({**MULTITASK, "tasks": {"digit": {}, "odd": {}}}, controls=("/digit", "/odd")),
    "taught multitask": Case({**MULTITASK, "tasks": {"digit": {"teacher": STAGE}, "odd": {}}}, "teacher/digit"),
    "distillation": Case(DISTILLATION, "teacher"),
    "distillation with unlabelled rows": Case({**DISTILLATION, "unlabelled": "digits"}, "teacher"),
}
WHOLE = [name for name in CASES if "unlabelled" not in name]
"""Where a batch of one arm is a batch of the other."""


Ran = Callable[[str], Watched]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The job of a case, trained once."""
    return cache(lambda name: train(CASES[name].body, tmp_path_factory.mktemp("pairs")))


def pairs(name: str, run: Watched) -> list[tuple[int, Stage, Stage]]:
    """(k, treated, control) of each pair."""
    return [
        (k, run.stages["target" if k == 0 else f"treated/{k}"], run.stages[f"control/{k}{task}"])
        for k in range(SEEDS)
        for task in CASES[name].controls
    ]


@pytest.mark.parametrize("case", CASES)
def test_both_arms_see_the_same_rows_in_the_same_order_and_are_watched_on_the_same_ones(case: str, ran: Ran) -> None:
    for _, treated, control in pairs(case, ran(case)):
        ours, theirs = treated.batch_source.samplers[0], control.batch_source.samplers[0]
        assert len(ours.rows) == ROWS
        assert order(ours) == order(theirs)
        assert order(ours) != sorted(ours.rows.tolist())
        for task, check in control.fit_spec.checks.items():
            assert np.array_equal(check.inputs[:], treated.fit_spec.checks[task].inputs[:])
            assert np.array_equal(check.values, treated.fit_spec.checks[task].values)


@pytest.mark.parametrize("case", WHOLE)
def test_a_batch_of_one_arm_is_that_of_the_other_augmentation_included(case: str, ran: Ran) -> None:
    for _, treated, control in pairs(case, ran(case)):
        for step in range(3):
            (ours, theirs) = (arm.batch_source.batch(step) for arm in (treated, control))
            assert np.array_equal(ours[0], theirs[0])
            still = control.network.scaling(control.batch_source.inputs[control.batch_source.samplers[0].batch(step)])
            assert not np.allclose(theirs[0], still, atol=1e-3)  # it was augmented
            for name, values in theirs[1].items():
                assert np.array_equal(ours[1][name], values), name


@pytest.mark.parametrize("case", CASES)
def test_both_arms_begin_alike_and_train_as_long_with_the_same_dropout(case: str, ran: Ran) -> None:
    for k, treated, control in pairs(case, ran(case)):
        assert treated.seed == control.seed == SEED + k
        assert treated.trained.steps == control.trained.steps == 2
        alike = {"odd_logits"} if case == "transfer" else set(control.network.weights)
        assert same(*({name: arm.network.weights[name] for name in alike} for arm in (treated, control)))
        assert not same(control.network.weights, control.trained.network.weights)


def test_what_a_transfer_inherits_is_the_source_s_and_its_control_begins_from_nothing(ran: Ran) -> None:
    run = ran("transfer")
    source = run.stages["source"].trained.network.weights
    for _, treated, control in pairs("transfer", run):
        trunk = set(treated.network.weights) - {"odd_logits"}
        assert same({name: treated.network.weights[name] for name in trunk}, {name: source[name] for name in trunk})
        for name in ("conv1", "conv2", "dense1"):
            assert not np.array_equal(control.network.weights[name][0], source[name][0])


@pytest.mark.parametrize("case", CASES)
def test_another_seed_draws_other_rows_another_order_and_another_beginning(case: str, ran: Ran) -> None:
    found = pairs(case, ran(case))
    (_, _, one), (_, _, other) = found[0], found[-len(CASES[case].controls)]
    assert one.seed != other.seed
    lines = [arm.batch_source.samplers[0] for arm in (one, other)]
    assert set(order(lines[0])) != set(order(lines[1]))
    places = [np.searchsorted(np.sort(line.rows), order(line)).tolist() for line in lines]
    assert places[0] != places[1]
    for name in ("conv1", "conv2", "dense1"):
        assert not np.array_equal(one.network.weights[name][0], other.network.weights[name][0])


@pytest.mark.parametrize("case", CASES)
def test_the_test_rows_are_one_set_that_no_stage_of_the_job_learns_from(case: str, ran: Ran) -> None:
    run = ran(case)
    ((ref, tested),) = run.tested.items()
    assert len(tested) == SEEDS * (1 + len(CASES[case].controls))
    assert all(np.array_equal(rows, tested[0]) for rows in tested)
    held_out = hashes(datasets.load(ref).inputs[tested[0]])
    assert len(held_out) > 300
    arms = {"target", "treated/1", *(f"control/{k}{task}" for k in range(SEEDS) for task in CASES[case].controls)}
    assert set(run.stages) - arms == {CASES[case].before} - {None}
    for name, stage in run.stages.items():
        assert not held_out & hashes(stage.raw), name


MLP = {"arch": "mlp", "units": [4]}
TAUGHT = {"train": {"dataset": "wine", "architecture": MLP, "training": {"steps": 5}}}
TOTAL: dict[str, dict[str, Any]] = {
    "transfer": {"dataset": "wine", "source": TAUGHT},
    "distillation": {"dataset": "wine", "student": MLP, "teacher": TAUGHT},
    "multitask": {"dataset": "wine", "trunk": MLP, "tasks": {"class": {"teacher": TAUGHT}}},
}


@pytest.mark.parametrize("kind", TOTAL)
def test_under_budget_total_the_control_gets_the_steps_of_the_source_too_and_a_rate_of_its_own(
    kind: str, tmp_path: Path
) -> None:
    control = {"seeds": 1, "budget": "total", "training": {"learning_rate": 0.02}}
    training = {"steps": 3, "optimizer": {"learning_rate": 0.004}}
    run = train({"kind": kind, **TOTAL[kind], "training": training, "control": control}, tmp_path)
    ours, theirs = (run.stages[name].trained for name in ("target", "control/0"))
    assert (ours.steps, ours.rate) == (3, 0.004)
    assert (theirs.steps, theirs.rate) == (3 + 5, 0.02)
