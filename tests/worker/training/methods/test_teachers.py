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
from worker.training.data.batches import Feed, Line
from worker.training.fitting.goal import Goal
from worker.training.job import Job
from worker.training.methods._teachers import Teachers
from worker.training.objectives import logits as soft
from worker.training.process.failures import Failure

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TINY = {"arch": "cnn", "filters": [2, 3], "dense": 4}
TRAINING = TrainingSpec(batch_size=16)
LABELLED, SEED = 40, 3


class Lesson:
    """A student of digits with 40 labels, and two teachers who see all other rows that may train as well."""

    def __init__(self, home: Path, online: bool = False):
        self.run = Job({}, home, Quiet(), threading.Event()).run
        self.target = self.run.data("digits", {"digit": TaskSpec(column="digit")}, SplitSpec(), LABELLED)
        self.unlabelled = self.run.unlabelled("digits", self.target.held_out)
        self.draw = self.target.draw(SEED)
        self.network = self.run.fresh(architectures.resolve(TINY), [self.draw], SEED)
        nets = [self.run.fresh(architectures.resolve(TINY), [self.draw], seed) for seed in (8, 9)]
        models: list[Any] = [
            SimpleNamespace(id=str(n), network=net, manifest=SimpleNamespace(sha256=str(n)))
            for n, net in enumerate(nets)
        ]
        self.teachers = Teachers(self.run, models, [3.0, 1.0], [soft.Spec(temperature=2.0)], online=online)

    def feed(self) -> Feed:
        return self.teachers.feed(self.network, self.draw, self.unlabelled, TRAINING, SEED)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    return Lesson(tmp_path_factory.mktemp("lesson"))


@pytest.fixture(scope="module")
def feed(lesson: Lesson) -> Feed:
    return lesson.feed()


def test_half_of_each_batch_is_labelled_and_the_other_half_counts_for_no_label(lesson: Lesson, feed: Feed) -> None:
    digits = lesson.target.table
    for step in range(feed.steps_per_epoch):
        _, y = feed.batch(step)
        rows = feed.lines[0].batch(step)
        assert y["digit/labelled"].tolist() == [1.0] * 8 + [0.0] * 8
        assert np.array_equal(y["digit"][:8], digits.columns["digit"][rows])
        assert np.isin(rows, lesson.draw.train).all()
    assert not feed.given["digit/labelled"][feed.lines[1].rows].any()


def test_unlabelled_rows_are_all_that_may_train_but_the_labelled_ones(lesson: Lesson, feed: Feed) -> None:
    labelled, others = (hashes(feed.inputs[line.rows]) for line in feed.lines)
    held_out = {row.tobytes() for row in lesson.target.held_out}
    assert labelled == hashes(lesson.target.table.inputs[lesson.draw.train])
    assert not labelled & others
    assert not (labelled | others) & held_out
    assert labelled | others == hashes(lesson.target.table.inputs[lesson.target.split.train])


def test_an_epoch_ends_when_the_longer_half_has_been_seen_once(lesson: Lesson, feed: Feed) -> None:
    steps = Teachers.epoch_steps(lesson.draw, lesson.unlabelled, TRAINING)
    assert steps == feed.steps_per_epoch
    seen = np.concatenate([feed.lines[1].batch(step) for step in range(steps)])
    assert set(seen) == set(feed.lines[1].rows)
    assert len(seen) - len(feed.lines[1].rows) < 8
    assert np.bincount(np.concatenate([feed.lines[0].batch(step) for step in range(5)]))[lesson.draw.train].max() == 1


def test_no_row_beyond_the_labelled_ones_is_a_fault_of_the_data(lesson: Lesson) -> None:
    everything = replace(lesson.target, limit=None).draw(SEED)
    with pytest.raises(Failure, match="no row beyond the labelled ones") as caught:
        lesson.teachers.feed(lesson.network, everything, lesson.unlabelled, TRAINING, SEED)
    assert caught.value.code == "dataset_invalid"


@pytest.mark.parametrize("online", [False, True], ids=["cached", "online"])
def test_each_row_of_a_batch_comes_with_what_each_teacher_says_of_that_very_row(online: bool, tmp_path: Path) -> None:
    made = Lesson(tmp_path, online)
    feed = made.feed()
    for step in (0, 3):
        _, y = feed.batch(step)
        raw = feed.inputs[np.concatenate([line.batch(step) for line in feed.lines])]
        for number, model in enumerate(made.teachers.models):
            said = made.run.logits(model.network, raw)["digit"]
            assert np.allclose(y[f"digit/teacher/{number}"], said, atol=1e-5)
            assert said.std(axis=0).min() > 1e-3  # rows could be told apart
    assert not np.allclose(y["digit/teacher/0"], y["digit/teacher/1"], atol=1e-3)


@pytest.mark.slow
def test_labels_of_unlabelled_rows_have_no_gradient(lesson: Lesson, feed: Feed) -> None:
    """One SGD step on the labels alone is the step without those rows, whatever stands where their labels would."""
    goal = Goal({"d": ["digit"]}, lesson.network.tasks)
    scribbled = {**feed.given, "digit": np.where(feed.given["digit/labelled"] > 0, feed.given["digit"], 7)}
    alone = [Line(lesson.draw.train, 8, SEED, "digits")]
    results = []
    for one in (feed, replace(feed, given=scribbled), replace(feed, lines=alone)):
        made = compiled(lesson.network, goal)
        made.step(batches.batch({"d": one}, 0))
        results.append(made.live.read())
    assert same(results[0], results[1])
    assert same(results[0], results[2], tolerance=1e-6)
    assert not same(results[0], lesson.network.weights, tolerance=1e-4)


@pytest.mark.slow
def test_unlabelled_rows_teach_through_the_objectives(lesson: Lesson, feed: Feed) -> None:
    goal = Goal(
        {"d": ["digit"]},
        lesson.network.tasks,
        objectives={"digit": lesson.teachers.objectives},
        teachers={"digit": lesson.teachers.weights},
        label_weight=0.0,
    )
    moved = []
    for lines in (feed.lines, feed.lines[:1], feed.lines[1:]):
        made = compiled(lesson.network, goal)
        made.step(batches.batch({"d": replace(feed, lines=lines)}, 0))
        now = made.live.read()
        moved.append(
            np.concatenate(
                [(a - b).ravel() for name in now for a, b in zip(now[name], lesson.network.weights[name], strict=True)]
            )
        )
    assert np.allclose(moved[0], (moved[1] + moved[2]) / 2, atol=1e-6)
    assert np.abs(moved[2]).max() > 1e-4
