"""A trainer that is asked to stop saves, leaves the model so far where it is one to go on with, and ends at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.registry import modules
from tests.worker.training.attempts import Job, told
from tests.worker.training.fitting.learnable import PHASES, TRAINING, learnable
from tests.worker.training.resumed import CNN, PICTURES, TABLE
from tests.worker.training.resumed import assignment as resolved
from tests.worker.training.small import Quiet, StopAt, fit_loop, same, stored
from worker.reports import Checkpoint, Exit, Failed, Kept, Metrics, Result, Resumed, Stage
from worker.training import experiment, trainer
from worker.training.data.batches import Sampler
from worker.training.experiment import job as jobs
from worker.training.fitting import fit
from worker.training.fitting.plan import Check, FitSpec, Phase
from worker.training.process.failures import Stopped

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

JOBS: dict[str, dict[str, Any]] = {
    "transfer": {
        "kind": "transfer",
        "dataset": "wine",
        "source": {"train": TABLE},
        "training": {"epochs": 4, "batch_size": 32, "early_stopping": {"patience": 4}},
        "control": {"seeds": 2},
    },
    "distillation": {
        "kind": "distillation",
        "dataset": "digits",
        "limit_train_examples": 60,
        "teacher": {"train": PICTURES},
        "student": CNN,
        "generations": 2,
        "training": {"epochs": 4, "batch_size": 32},
    },
}

STAGES = [
    ("transfer", "source", {"trained_on": ["wine"]}),
    ("transfer", "target", {"initialized_from": ["source"], "trained_on": ["wine"]}),
    ("transfer", "control/0", None),
    ("transfer", "treated/1", None),
    ("distillation", "teacher", {"trained_on": ["digits"]}),
    ("distillation", "generation/0/1", {"distilled_from": ["teacher"], "trained_on": ["digits"]}),
]
"""Where a job is stopped, and the lineage of what is left of it; None: there is a finished model, or it is no step towards one."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "EVALUATION_STEPS", 1)


@pytest.mark.parametrize(("kind", "stage", "lineage"), STAGES)
def test_a_stop_in_a_stage_leaves_what_it_has_learnt(
    kind: str, stage: str, lineage: dict[str, list[str]] | None, tmp_path: Path
) -> None:
    import keras

    job = Job(resolved(JOBS[kind]), tmp_path)
    assert job.run(_in_the_middle_of(stage), gently=True) == Exit.STOPPED
    lines = told(job)
    saved = [line for line in lines if isinstance(line, Checkpoint)][-1]
    assert saved.stage == stage
    left = [line for line in lines if isinstance(line, Kept) and line.role == "unfinished"]
    if lineage is None:
        assert not left
        assert lines[-1] == saved
        return
    (line,) = left
    assert lines[-2:] == [saved, line]
    assert {edge.relation: [edge.target] for edge in line.edges} == lineage
    manifest = json.loads((job.out / line.manifest).read_text())
    words = manifest["training"]["unfinished"]
    assert (words["stage"], words["steps"]) == (stage, saved.step)
    assert 0 < words["steps"] < words["of"]
    assert manifest["training"]["steps"] == saved.step
    assert line.rows is not None
    model = keras.saving.load_model(job.out / line.model)
    answers = model.predict(np.zeros((3, *model.input_shape[1:]), np.float32), verbose=0)
    assert all(np.isfinite(values).all() for values in answers.values())

    assert job.run() == Exit.DONE
    assert next(line.step for line in job.of(Resumed)[1:] if line.stage == stage and line.step) == saved.step


def _in_the_middle_of(stage: str) -> Callable[[Any], bool]:
    prefix = "" if stage == "target" else f"{stage}/"
    return lambda line: isinstance(line, Metrics) and f"{prefix}loss" in line.values


def test_what_is_left_are_the_best_watched_numbers(tmp_path: Path) -> None:
    stop = threading.Event()
    made = fit_loop(tmp_path, Quiet(), stop)
    made.most_steps = 1
    step = made.progress.step

    def counted(stage: str, number: int, *rest: Any) -> None:
        step(stage, number, *rest)
        if number == 41:
            stop.set()

    made.progress.step = counted  # type: ignore[method-assign]
    whole, fit_spec = learnable()
    so_far = made.fit("target", whole, fit_spec, PHASES, TRAINING, 3)
    assert so_far.stopped
    assert so_far.best is not None
    assert so_far.best["step"] < 41
    logits = fit_loop(tmp_path / "again").logits(so_far.network, fit_spec.checks["odd"].inputs)
    right = [
        (logits["odd"][:, 0] > 0) == fit_spec.checks["odd"].values,
        logits["digit"].argmax(axis=1) == fit_spec.checks["digit"].values,
    ]
    assert np.mean([one.mean() for one in right]) == pytest.approx(so_far.best["value"])


def test_a_stop_after_the_last_step_of_a_stage_keeps_its_finished_model(tmp_path: Path) -> None:
    job = Job(resolved(JOBS["transfer"]), tmp_path)
    last = 16  # 4 epochs of 4 steps

    def at_the_end(line: Any) -> bool:
        return isinstance(line, Metrics) and "loss" in line.values and line.step == last

    assert job.run(at_the_end, gently=True) == Exit.STOPPED
    assert [line.role for line in job.of(Kept)] == ["source", "model"]
    assert isinstance(told(job)[-1], Kept)


def test_a_stop_before_the_first_step_and_one_after_the_last_stage_end_at_once(tmp_path: Path) -> None:
    job = Job(resolved(JOBS["transfer"]), tmp_path)
    assert job.run(lambda line: isinstance(line, Stage), gently=True) == Exit.STOPPED
    assert not job.of(Kept)
    assert job.run(lambda line: isinstance(line, Stage) and line.name == "evaluate", gently=True) == Exit.STOPPED
    assert isinstance(told(job)[-1], Stage)
    assert "unfinished" not in {line.role for line in job.of(Kept)}
    assert job.run() == Exit.DONE


class Rows(np.ndarray):
    """Rows that set `stop` when chunk `at` (from 0) of them is read."""

    stop: threading.Event
    at: int

    def __getitem__(self, key: Any) -> Any:
        self.at -= 1
        if self.at == -1:
            self.stop.set()
        return np.asarray(super().__getitem__(key))


def test_a_long_validation_is_broken_off_and_taken_up_again(tmp_path: Path) -> None:
    """600 watched rows are three chunks; asked to stop at the second one of the fifth validation, at step 25."""

    def watched(stop: threading.Event) -> tuple[Any, FitSpec]:
        whole, fit_spec = learnable()
        rows = np.random.default_rng(7).standard_normal((600, 5)).astype(np.float32).view(Rows)
        rows.stop, rows.at = stop, 4 * 3 + 1
        checks = {
            name: Check(check.metric, rows, stored(whole.tasks[name], 600)) for name, check in fit_spec.checks.items()
        }
        return whole, replace(fit_spec, checks=checks)

    begun = fit_loop(tmp_path / "a")
    straight = begun.fit("target", *watched(threading.Event()), PHASES, TRAINING, 3)
    stop, quiet = threading.Event(), Quiet()
    halted = fit_loop(tmp_path / "b", quiet, stop, begun).fit("target", *watched(stop), PHASES, TRAINING, 3)
    assert (halted.stopped, halted.steps) == (True, 25)
    assert max(line.step for line in quiet.reports if isinstance(line, Metrics)) == 20
    quiet = Quiet()
    again = fit_loop(tmp_path / "b", quiet, after=begun).fit("target", *watched(threading.Event()), PHASES, TRAINING, 3)
    assert min(line.step for line in quiet.reports if isinstance(line, Metrics)) == 25
    assert again.best == straight.best
    assert same(straight.network.weights, again.network.weights)


def of_features(stop: threading.Event) -> tuple[Any, FitSpec, list[Phase]]:
    """A frozen trunk's of 300 rows are computed in two chunks; `stop` is set in the first."""
    whole, fit_spec = learnable()
    (data,) = fit_spec.batch_sources.values()
    rows = np.random.default_rng(7).standard_normal((300, 5)).astype(np.float32).view(Rows)
    rows.stop, rows.at = stop, 0
    given = {name: np.resize(values, (300, *values.shape[1:])) for name, values in data.given.items()}
    batch_sources = {"d": replace(data, inputs=rows, given=given, samplers=[Sampler(np.arange(300), 12, 0)])}
    return (
        whole,
        replace(fit_spec, batch_sources=batch_sources),
        [Phase(80, 1e-2, frozenset(whole.trunk), True, cache=True)],
    )


def test_features_that_take_long_are_broken_off_too(tmp_path: Path) -> None:
    stop = threading.Event()
    whole, fit_spec, phases = of_features(stop)
    with pytest.raises(Stopped):
        fit_loop(tmp_path, None, stop).fit("target", whole, fit_spec, phases, TRAINING, 3)
    assert fit_spec.batch_sources["d"].inputs.at == -1  # type: ignore[attr-defined]


def test_features_of_a_fit_that_goes_on_are_broken_off_and_it_gives_back_what_it_had_learnt(tmp_path: Path) -> None:
    stop = threading.Event()
    first = fit_loop(tmp_path, None, stop)
    first.progress, first.most_steps = StopAt(Quiet(), stop, 30), 1
    before = first.fit("target", *of_features(threading.Event()), TRAINING, 3)
    stop, quiet = threading.Event(), Quiet()
    again = fit_loop(tmp_path, quiet, stop, first).fit("target", *of_features(stop), TRAINING, 3)
    assert [type(line) for line in quiet.reports] == [Resumed]
    assert (again.stopped, again.steps, again.best) == (True, 30, before.best)
    assert same(before.network.weights, again.network.weights)


# --- methods of other people


def ran(train: Callable[[jobs.Job], None], tmp_path: Path, stop: threading.Event) -> tuple[Exit, Quiet]:
    """A job of which `train` makes what it likes."""
    quiet = Quiet()
    words = resolved(JOBS["transfer"])
    with pytest.MonkeyPatch.context() as patched:
        method = modules("methods")["transfer"]
        patched.setattr(method, "experiment", lambda *_: None)
        patched.setattr(experiment, "conduct", lambda _, job: train(job))
        return trainer.run({**words, "checkpoints": str(tmp_path / "c")}, tmp_path / "out", quiet, stop), quiet


@pytest.mark.parametrize("then", ["ends", "stumbles", "fits again"])
def test_a_method_that_knows_nothing_of_it_stops_too(then: str, tmp_path: Path) -> None:
    stop = threading.Event()

    def train(job: jobs.Job) -> None:
        whole, fit_spec = learnable()
        job.progress.step = lambda *_: stop.set()  # type: ignore[method-assign]
        trained = job.fit("target", whole, fit_spec, PHASES, TRAINING, 3)
        assert trained.stopped
        match then:
            case "stumbles":
                raise ValueError("the network is not what was expected")
            case "fits again":
                job.fit("control/0", whole, fit_spec, PHASES, TRAINING, 3)
        job.send(Result())

    code, quiet = ran(train, tmp_path, stop)
    assert code == Exit.STOPPED
    assert not [line for line in quiet.reports if isinstance(line, Failed)]
    assert [line.step for line in quiet.reports if isinstance(line, Checkpoint)] == [1]


def test_a_stop_that_comes_before_a_fit_goes_on_gives_back_what_it_had_learnt(tmp_path: Path) -> None:
    stop, fitted = threading.Event(), []

    def train(job: jobs.Job) -> None:
        whole, fit_spec = learnable()
        job.progress.step = lambda *_: stop.set()  # type: ignore[method-assign]
        fitted.append(job.fit("target", whole, fit_spec, PHASES, TRAINING, 3))

    for _ in range(2):
        assert ran(train, tmp_path, stop)[0] == Exit.STOPPED
    assert [(one.stopped, one.steps) for one in fitted] == [(True, 1)] * 2
    assert same(fitted[0].network.weights, fitted[1].network.weights)
