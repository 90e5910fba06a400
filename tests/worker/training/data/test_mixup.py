"""mixup: rows and losses against the definition row by row, labels that are missing, and what cannot be mixed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.data import inputs
from app.spec.training import MixUp, Noise
from tests.worker.training import mixed, small
from tests.worker.training.methods.resolving import MODEL, faults, resolve
from tests.worker.training.small import DIGIT, ODD, SIGNS, SIZE, batch_source, compiled, network, same, stored
from worker.training.data import batches
from worker.training.data.augmentation import Augment, Mixing
from worker.training.data.scaling import Scaling
from worker.training.fitting.distillation_loss import DistillationLoss
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.tasks import heads

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

RNG = np.random.default_rng(0)
ROWS = RNG.integers(0, 256, (6, 5, 5, 2)).astype(np.uint8)
BYTES = Scaling((0.0,), (255.0,))


def test_each_row_is_mixed_with_another_by_a_share_of_its_own() -> None:
    made = Augment([MixUp(alpha=1.0)], 0, "d", BYTES)
    mixing = made.mixing(6, 4)
    assert mixing is not None
    assert sorted(mixing.other) == list(range(6))
    assert len(set(mixing.share.tolist())) == 6
    expected = [
        share * ROWS[row].astype(np.float64) + (1 - share) * ROWS[other]
        for row, (share, other) in enumerate(zip(mixing.share, mixing.other, strict=True))
    ]
    assert np.allclose(made(ROWS, 4), expected, atol=1e-3)
    assert np.array_equal(made(ROWS, 4), Augment([MixUp(alpha=1.0)], 0, "d", BYTES)(ROWS, 4))
    assert not np.array_equal(made(ROWS, 4), made(ROWS, 5))
    assert not np.array_equal(made(ROWS, 4), Augment([MixUp(alpha=1.0)], 0, "other", BYTES)(ROWS, 4))


def test_shares_follow_the_beta_distribution_and_other_changes_are_drawn_as_without() -> None:
    for alpha in (0.2, 1.0, 4.0):
        share = Augment([MixUp(alpha=alpha)], 0, "d", BYTES).mixing(20_000, 1).share  # type: ignore[union-attr]
        assert share.mean() == pytest.approx(0.5, abs=0.02)
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    noisy = Augment([Noise()], 0, "d", BYTES)(ROWS, 2)
    both = Augment([MixUp(), Noise()], 0, "d", BYTES)
    assert np.array_equal(both(ROWS, 2), both.mixing(6, 2).of(noisy))  # type: ignore[union-attr]


def one_by_one(task: Any, target: np.ndarray, labelled: np.ndarray, logits: np.ndarray) -> list[tuple[float, float]]:
    """(loss, 1 or 0 where there is no label) of each row, each computed in a batch of its own."""
    rows = [
        heads.loss(
            task, {task.name: target[at : at + 1], f"{task.name}/labelled": labelled[at : at + 1]}, logits[at : at + 1]
        )
        for at in range(len(logits))
    ]
    return [(float(loss), float(count)) for loss, count in rows]


@pytest.mark.parametrize("task", [DIGIT, ODD, SIGNS, SIZE], ids=lambda task: task.type)
@pytest.mark.parametrize("missing", [False, True])
def test_the_loss_is_that_of_both_labels_by_their_shares(task: Any, missing: bool) -> None:
    values = stored(task, 6)
    if missing:
        values[[0, 3, 4]] = -1 if values.dtype.kind == "i" else np.nan
        if values.ndim > 1:
            values[1, 0] = np.nan  # a row with some of its labels
    y = heads.targets(task, values)
    logits = RNG.normal(0, 2, (6, task.units)).astype(np.float32)
    mixing = Mixing(RNG.random(6).astype(np.float32), np.array([1, 2, 0, 4, 3, 5]))
    own = one_by_one(task, y[task.name], y[f"{task.name}/labelled"], logits)
    others = one_by_one(task, y[task.name][mixing.other], y[f"{task.name}/labelled"][mixing.other], logits)
    total = weight = 0.0
    for share, (loss, there), (other_loss, other_there) in zip(mixing.share.tolist(), own, others, strict=True):
        total += share * there * loss + (1 - share) * other_there * other_loss
        weight += share * there + (1 - share) * other_there
    found, count = heads.loss(task, mixing.of_targets(y), logits)
    assert float(count) == pytest.approx(weight, rel=1e-5)
    assert float(found) == pytest.approx(total / weight, rel=1e-5)
    if not missing:
        assert weight == pytest.approx(6)


def test_without_any_label_the_loss_is_nothing_and_the_task_is_left_out() -> None:
    y = heads.targets(DIGIT, np.full(4, -1, np.int32))
    mixing = Mixing(np.full(4, 0.3, np.float32), np.array([1, 0, 3, 2]))
    loss, count = heads.loss(DIGIT, mixing.of_targets(y), np.zeros((4, 4), np.float32))
    assert (float(loss), float(count)) == (0, 0)


def test_a_whole_share_of_oneself_is_a_step_as_without_mixing() -> None:
    whole = network([DIGIT, SIZE])
    columns = {task.name: stored(task, 8) for task in (DIGIT, SIZE)}
    x, y = batches.batch({"d": batch_source(whole, columns, 8)}, 0)
    spec = LossSpec({"d": ["digit", "size"]}, {"digit": DIGIT, "size": SIZE})
    plain, alike = compiled(whole, spec), compiled(whole, spec)
    plain.step((x, y))
    alike.step((x, Mixing(np.ones(8, np.float32), np.arange(8)[::-1].copy()).of_targets(y)))
    assert same(plain.keras_layers.read(), alike.keras_layers.read(), 1e-6)


def test_objectives_see_no_label_of_a_mixed_row() -> None:
    """Not one of its two: its teachers were asked about the mixed row."""
    loss = SimpleNamespace(loss_spec=SimpleNamespace(teachers={"digit": [1.0]}, logit_standardization=False))
    y = {**heads.targets(DIGIT, stored(DIGIT, 4)), "digit/teacher/0": np.zeros((4, 4), np.float32)}
    given: Any = DistillationLoss._answers
    assert given(loss, DIGIT, y, np.zeros((4, 4))).labels is y["digit"]
    answers = given(loss, DIGIT, {**y, "digit/share": np.ones(4, np.float32)}, np.zeros((4, 4)))
    assert (answers.labels, answers.labelled) == (None, None)


def fit_spec(whole: Any) -> FitSpec:
    columns = {task.name: stored(task, 24) for task in (DIGIT, SIZE)}
    columns["digit"][::3] = -1
    augment = Augment([Noise(), MixUp()], 0, "d", whole.scaling)
    source = batch_source(whole, columns, 8, augment=augment)
    return FitSpec(LossSpec({"d": ["digit", "size"]}, {"digit": DIGIT, "size": SIZE}), {"d": source})


@pytest.mark.slow
def test_a_stopped_fit_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = network([DIGIT, SIZE])
    straight = small.fit(tmp_path / "a", whole, fit_spec(whole), [Phase(9, 1e-2)], batch_size=8)
    stopped = small.stopped_and_continued(tmp_path / "b", whole, fit_spec(whole), [Phase(9, 1e-2)], (4,), batch_size=8)
    assert same(straight.weights, stopped.weights)
    plain = fit_spec(whole)
    plain.batch_sources["d"].augment.spec.pop()  # type: ignore[union-attr]
    assert not same(straight.weights, small.fit(tmp_path / "c", whole, plain, [Phase(9, 1e-2)], batch_size=8).weights)


# --- words


def told(**more: Any) -> dict[str, str]:
    """What is wrong with mixup in a job."""
    return faults({"kind": "transfer", "source": MODEL, "training": {"augmentation": [{"type": "mixup"}]}, **more})


def test_what_has_no_mean_or_no_label_of_a_whole_row_is_refused_with_why() -> None:
    assert "is not for inputs of kind text" in str(told(dataset="messages", target="topic"))
    boxes = {"kind": "multitask", "dataset": "shapes", "tasks": {"boxes": {}, "main": {}}}
    found = faults({**boxes, "training": {"augmentation": [{"type": "color"}, {"type": "mixup"}]}})
    assert "a mixed row has no answer to the boxes of 'boxes'" in str(found["/training/augmentation/1/type"])
    persons = {"kind": "multitask", "dataset": "faces", "split": {"by": "group", "column": "person"}}
    embedding = {**persons, "tasks": {"person": {"type": "embedding"}, "glasses": {}}}
    found = faults({**embedding, "training": {"augmentation": [{"type": "mixup"}]}})
    assert "a mixed row has no answer to the embedding of 'person'" in str(found["/training/augmentation/0/type"])
    twice = {"augmentation": [{"type": "mixup"}, {"type": "mixup"}]}
    assert "mixup is given twice" in str(faults({"kind": "multitask", "dataset": "digits", "training": twice}))


def test_pictures_sounds_and_plain_tables_are_mixed_and_tables_of_words_are_not() -> None:
    training = {"augmentation": [{"type": "mixup"}], "steps": 3}
    for dataset, tasks in (("digits", ["digit", "odd"]), ("tones", ["pattern", "high"])):
        resolve({"kind": "multitask", "dataset": dataset, "tasks": {name: {} for name in tasks}, "training": training})
    plain = {"kind": "transfer", "dataset": "wine", "source": {"train": {"dataset": "wine", "training": training}}}
    assert resolve({**plain, "training": training})
    assert inputs.mixing_refusal(small.TABLE) is None
    assert "categories or missing values" in str(inputs.mixing_refusal(mixed.table().schema.input))
