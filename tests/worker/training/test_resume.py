"""A job that was killed or stopped, and goes on in another process, ends bit for bit as one that was not.

The names of the catalog one by one are in test_every_name.py; here is what they do together, and what a bad disk does.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.training import TrainingSpec
from tests.worker.training.attempts import Job, broken, differences, number, saved_often, told, unbroken
from tests.worker.training.combined import CASES
from tests.worker.training.fitting.spoiling import SPOIL
from tests.worker.training.resumed import TABLE, assignment
from tests.worker.training.small import DIGIT, ODD, batch_source, network, stored
from worker.reports import Checkpoint, Exit, Resumed, Warned
from worker.training.fitting import checkpoint
from worker.training.fitting.checkpoint import Saved
from worker.training.fitting.fit import FitState, ModelCache
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.fitting.program import Pace
from worker.training.process import device

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

UNSTEADY: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "diabetes",
    "source": {"train": {"dataset": "diabetes", "architecture": {"arch": "mlp", "units": [8]}, "training": {"steps": 3}}},
    "limit_train_examples": 4,
    "training": {"steps": 60, "seed": 2, "optimizer": {"name": "sgd", "learning_rate": 0.35}},
    "control": {"seeds": 3, "training": {"learning_rate": 0.01}},
}  # fmt: skip
"""As in test_failing_arms.py: of three treated arms the second is lost."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    saved_often(monkeypatch)


@pytest.mark.parametrize("case", list(CASES))
def test_what_is_combined_goes_on_bit_for_bit(case: str, tmp_path: Path) -> None:
    words = assignment(CASES[case])
    straight = unbroken(words, tmp_path / "a")
    killed = broken(straight, tmp_path / "b", random.Random(case), kills=2)
    assert not differences(straight.result, killed.result)


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.long
def test_at_whatever_moments(seed: int, case: str, tmp_path: Path) -> None:
    words = assignment(CASES[case])
    straight = unbroken(words, tmp_path / "a")
    killed = broken(straight, tmp_path / "b", random.Random(f"{case} {seed}"), kills=4)
    assert not differences(straight.result, killed.result)


def test_no_pass_over_a_graph_may_add_up_in_another_order() -> None:
    import tensorflow as tf

    device.prepare()
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"] is False


@pytest.mark.long
def test_a_fit_that_is_traced_anew_is_the_same_however_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[Any, ...]] = []
    make = FitState.__init__
    monkeypatch.setattr(FitState, "__init__", lambda self, *given: (begun.append(given), make(self, *given))[1])
    unbroken(assignment(CASES["a head first, held by its source"]), tmp_path)
    monkeypatch.undo()
    given = next(one for one in begun if one[2].loss_spec.regularizer)
    once, *others = (logged(FitState(ModelCache(), *given[1:])) for _ in range(200))
    assert [number for number, other in enumerate(others) if other != once] == []


def logged(fit_state: FitState) -> list[dict[str, float]]:
    """What each step of a fit tells."""
    found = []
    fit_state.begin()
    fit_state._pace = Pace(1)
    while fit_state.step < fit_state.planned:
        fit_state.advance()
        found.append(dict(fit_state._losses.latest))
    return found


def test_an_arm_that_fails_fails_alike_before_and_after(tmp_path: Path) -> None:
    words = assignment(UNSTEADY)
    straight = unbroken(words, tmp_path / "a")
    (failed,) = [
        place for place, line in enumerate(told(straight)) if isinstance(line, Warned) and line.code == "arm_failed"
    ]
    for at in (failed - 3, failed + 5):
        killed = Job(words, tmp_path / f"b{at}")
        assert killed.run(number(at)) is None
        assert killed.run() == Exit.DONE
        assert not differences(straight.result, killed.result)


# --- what a bad disk does

SMALL: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "wine",
    "source": {"train": TABLE},
    "training": {"epochs": 6, "batch_size": 32, "early_stopping": {"patience": 3}},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Job:
    with pytest.MonkeyPatch.context() as patched:
        saved_often(patched)
        return unbroken(assignment(SMALL), tmp_path_factory.mktemp("small"))


def killed_late(home: Path, body: dict[str, Any], straight: Job) -> tuple[Job, list[Path]]:
    """A job that was killed in its target after three checkpoints of it, and these, newest first."""
    job = Job(assignment(body), home)
    saved = [
        place for place, line in enumerate(told(straight)) if isinstance(line, Checkpoint) and line.stage == "target"
    ]
    assert job.run(number(saved[2] + 1)) is None
    found = sorted((home / "checkpoints-1").glob("target-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
    assert len(found) == checkpoint.KEPT + 1  # the first as well: a worker may not have recorded the others
    return job, found


def resumed_from(job: Job) -> int:
    return [report.step for report in job.of(Resumed) if report.stage == "target"][-1]


@pytest.mark.parametrize("how", list(SPOIL))
@pytest.mark.parametrize("every", [False, True])
def test_spoilt_checkpoints_cost_steps_and_nothing_else(every: bool, how: str, small: Job, tmp_path: Path) -> None:
    job, found = killed_late(tmp_path, SMALL, small)
    for folder in found if every else found[:1]:
        SPOIL[how](folder)
    assert job.run() == Exit.DONE
    assert resumed_from(job) == (0 if every else int(found[1].name.rpartition("-")[2]))
    assert not differences(small.result, job.result)


OTHERS: dict[str, Callable[[Saved], Saved]] = {
    "one variable has another shape": lambda saved: replace(
        saved, arrays=[*saved.arrays[:3], np.zeros((2, 2), np.float32), *saved.arrays[4:]]
    ),
    "it ends early": lambda saved: replace(saved, arrays=saved.arrays[:4]),
    "of another program": lambda saved: Saved(saved.step, [], {"epoch": 3}),
    "of the same shapes": lambda saved: replace(saved, state={**saved.state, "fit": "0" * 64}),
}


@pytest.mark.parametrize("other", list(OTHERS))
def test_a_whole_checkpoint_of_another_fit_is_passed_over(other: str, small: Job, tmp_path: Path) -> None:
    job, (newest, older, _) = killed_late(tmp_path, SMALL, small)
    whole = next(checkpoint.whole(newest.parent, "target"))
    checkpoint.save(newest.parent, "target", OTHERS[other](whole))
    assert job.run() == Exit.DONE
    assert resumed_from(job) == int(older.name.rpartition("-")[2])
    assert not differences(small.result, job.result)


def test_what_a_fit_is_known_by_changes_with_all_that_its_numbers_hang_on(tmp_path: Path) -> None:
    """The same job at another rate, with another seed, or with more steps: all shapes are the same, and no step would be."""
    whole = network([DIGIT, ODD])
    fit_spec = FitSpec(
        LossSpec({"d": ["digit", "odd"]}, whole.tasks), {"d": batch_source(whole, {"digit": stored(DIGIT, 40)}, 8)}
    )
    other = replace(fit_spec, loss_spec=replace(fit_spec.loss_spec, label_weight=0.5))
    known = [
        FitState(ModelCache(), whole, *about, threading.Event()).fingerprint
        for about in [
            (fit_spec, [Phase(9, 1e-3)], TrainingSpec(), 0),
            (fit_spec, [Phase(9, 1e-3)], TrainingSpec(), 1),
            (fit_spec, [Phase(9, 2e-3)], TrainingSpec(), 0),
            (fit_spec, [Phase(9, 1e-3), Phase(3, 1e-3)], TrainingSpec(), 0),
            (fit_spec, [Phase(9, 1e-3, frozenset({"dense1"}))], TrainingSpec(), 0),
            (fit_spec, [Phase(9, 1e-3)], TrainingSpec(schedule="cosine"), 0),
            (other, [Phase(9, 1e-3)], TrainingSpec(), 0),
        ]
    ]
    assert len(set(known)) == len(known)
