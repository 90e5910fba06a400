"""What teachers add to a student's batches: every drawn row with its own answer, and unlabelled rows without a label of any kind."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.spec import architectures
from app.spec.data import SplitSpec
from app.spec.models import TaskSpec
from app.spec.training import TrainingSpec
from tests.worker.training.small import Quiet, compiled, same
from tests.worker.training.watched import hashes
from worker.training.data import batches
from worker.training.data.batches import BatchSource, Sampler
from worker.training.experiment.job import Job
from worker.training.fitting.loss_spec import LossSpec
from worker.training.methods._teachers import Teachers
from worker.training.objectives import logits as soft
from worker.training.process.failures import Failure

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TINY = {"arch": "cnn", "filters": [2, 3], "dense": 4}
TRAINING = TrainingSpec(batch_size=16)
LABELLED, SEED = 40, 3


class FitSpec:
    """A student of digits with 40 labels, and two teachers who see all other rows that may train as well."""

    def __init__(self, home: Path, online: bool = False):
        self.run = Job({}, home, Quiet(), threading.Event()).run
        self.target = self.run.data("digits", {"digit": TaskSpec(column="digit")}, SplitSpec(), LABELLED)
        self.unlabelled = self.run.unlabelled("digits", self.target.held_out)
        self.subset = self.target.subset(SEED)
        self.network = self.run.fresh(architectures.resolve(TINY), [self.subset], SEED)
        nets = [self.run.fresh(architectures.resolve(TINY), [self.subset], seed) for seed in (8, 9)]
        models: list[Any] = [
            SimpleNamespace(id=str(n), network=net, manifest=SimpleNamespace(sha256=str(n)))
            for n, net in enumerate(nets)
        ]
        self.teachers = Teachers(self.run, models, [3.0, 1.0], [soft.Spec(temperature=2.0)], online=online)

    def batch_source(self) -> BatchSource:
        return self.teachers.batch_source(self.network, self.subset, self.unlabelled, TRAINING, SEED)


@pytest.fixture(scope="module")
def fit_spec(tmp_path_factory: pytest.TempPathFactory) -> FitSpec:
    return FitSpec(tmp_path_factory.mktemp("lesson"))


@pytest.fixture(scope="module")
def batch_source(fit_spec: FitSpec) -> BatchSource:
    return fit_spec.batch_source()


def test_half_of_each_batch_is_labelled_and_the_other_half_counts_for_no_label(
    fit_spec: FitSpec, batch_source: BatchSource
) -> None:
    digits = fit_spec.target.table
    for step in range(batch_source.steps_per_epoch):
        _, y = batch_source.batch(step)
        rows = batch_source.samplers[0].batch(step)
        assert y["digit/labelled"].tolist() == [1.0] * 8 + [0.0] * 8
        assert np.array_equal(y["digit"][:8], digits.columns["digit"][rows])
        assert np.isin(rows, fit_spec.subset.train).all()
    assert not batch_source.given["digit/labelled"][batch_source.samplers[1].rows].any()


def test_unlabelled_rows_are_all_that_may_train_but_the_labelled_ones(
    fit_spec: FitSpec, batch_source: BatchSource
) -> None:
    labelled, others = (hashes(batch_source.inputs[line.rows]) for line in batch_source.samplers)
    held_out = {row.tobytes() for row in fit_spec.target.held_out}
    assert labelled == hashes(fit_spec.target.table.inputs[fit_spec.subset.train])
    assert not labelled & others
    assert not (labelled | others) & held_out
    assert labelled | others == hashes(fit_spec.target.table.inputs[fit_spec.target.split.train])


def test_an_epoch_ends_when_the_longer_half_has_been_seen_once(fit_spec: FitSpec, batch_source: BatchSource) -> None:
    steps = Teachers.epoch_steps(fit_spec.subset, fit_spec.unlabelled, TRAINING)
    assert steps == batch_source.steps_per_epoch
    seen = np.concatenate([batch_source.samplers[1].batch(step) for step in range(steps)])
    assert set(seen) == set(batch_source.samplers[1].rows)
    assert len(seen) - len(batch_source.samplers[1].rows) < 8
    assert (
        np.bincount(np.concatenate([batch_source.samplers[0].batch(step) for step in range(5)]))[
            fit_spec.subset.train
        ].max()
        == 1
    )


def test_no_row_beyond_the_labelled_ones_is_a_fault_of_the_data(fit_spec: FitSpec) -> None:
    everything = replace(fit_spec.target, limit=None).subset(SEED)
    with pytest.raises(Failure, match="no row beyond the labelled ones") as caught:
        fit_spec.teachers.batch_source(fit_spec.network, everything, fit_spec.unlabelled, TRAINING, SEED)
    assert caught.value.code == "dataset_invalid"


@pytest.mark.parametrize("online", [False, True], ids=["cached", "online"])
def test_each_row_of_a_batch_comes_with_what_each_teacher_says_of_that_very_row(online: bool, tmp_path: Path) -> None:
    made = FitSpec(tmp_path, online)
    batch_source = made.batch_source()
    for step in (0, 3):
        _, y = batch_source.batch(step)
        raw = batch_source.inputs[np.concatenate([line.batch(step) for line in batch_source.samplers])]
        for number, model in enumerate(made.teachers.models):
            said = made.run.logits(model.network, raw)["digit"]
            assert np.allclose(y[f"digit/teacher/{number}"], said, atol=1e-5)
            assert said.std(axis=0).min() > 1e-3  # rows could be told apart
    assert not np.allclose(y["digit/teacher/0"], y["digit/teacher/1"], atol=1e-3)


@pytest.mark.slow
def test_labels_of_unlabelled_rows_have_no_gradient(fit_spec: FitSpec, batch_source: BatchSource) -> None:
    """One SGD step on the labels alone is the step without those rows, whatever stands where their labels would."""
    loss_spec = LossSpec({"d": ["digit"]}, fit_spec.network.tasks)
    scribbled = {
        **batch_source.given,
        "digit": np.where(batch_source.given["digit/labelled"] > 0, batch_source.given["digit"], 7),
    }
    alone = [Sampler(fit_spec.subset.train, 8, SEED, "digits")]
    results = []
    for one in (batch_source, replace(batch_source, given=scribbled), replace(batch_source, samplers=alone)):
        made = compiled(fit_spec.network, loss_spec)
        made.step(batches.batch({"d": one}, 0))
        results.append(made.keras_layers.read())
    assert same(results[0], results[1])
    assert same(results[0], results[2], tolerance=1e-6)
    assert not same(results[0], fit_spec.network.weights, tolerance=1e-4)


@pytest.mark.slow
def test_unlabelled_rows_teach_through_the_objectives(fit_spec: FitSpec, batch_source: BatchSource) -> None:
    loss_spec = LossSpec(
        {"d": ["digit"]},
        fit_spec.network.tasks,
        objectives={"digit": fit_spec.teachers.objectives},
        teachers={"digit": fit_spec.teachers.weights},
        label_weight=0.0,
    )
    moved = []
    for lines in (batch_source.samplers, batch_source.samplers[:1], batch_source.samplers[1:]):
        made = compiled(fit_spec.network, loss_spec)
        made.step(batches.batch({"d": replace(batch_source, samplers=lines)}, 0))
        now = made.keras_layers.read()
        moved.append(
            np.concatenate(
                [
                    (a - b).ravel()
                    for name in now
                    for a, b in zip(now[name], fit_spec.network.weights[name], strict=True)
                ]
            )
        )
    assert np.allclose(moved[0], (moved[1] + moved[2]) / 2, atol=1e-6)
    assert np.abs(moved[2]).max() > 1e-4
