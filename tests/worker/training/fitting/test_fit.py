"""Fits that stop, resume and stop early; what they report on the way."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.spec import architectures
from app.spec.data import InputSchema
from app.spec.training import CheckpointSpec, EarlyStopping, TrainingSpec
from tests.worker.training.fitting.learnable import PHASES, TRAINING, learnable
from tests.worker.training.small import DIGIT, Quiet, batch_source, fit_loop, network, same, stored
from worker.reports import Checkpoint, Metrics, Progress, Resumed
from worker.training.data.batches import Sampler
from worker.training.fitting import fit
from worker.training.fitting.fit import ModelCache
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks.network import Network
from worker.training.process.failures import Failure
from worker.training.tasks.heads import Task
from worker.training.weighting import uncertainty

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]


@pytest.mark.parametrize("at", [7, 23, 24, 50])
def test_a_fit_stopped_at_any_step_and_resumed_ends_bit_for_bit_the_same(at: int, tmp_path: Path) -> None:
    whole, fit_spec = learnable()
    begun = fit_loop(tmp_path / "a")
    straight = begun.fit("target", whole, fit_spec, PHASES, TRAINING, 3)

    stop, told = threading.Event(), Quiet()
    first = fit_loop(tmp_path / "b", told, stop, after=begun)
    step = first.progress.step

    def counted(stage: str, number: int, *rest: Any) -> None:
        step(stage, number, *rest)
        if number == at:
            stop.set()

    first.progress.step = counted  # type: ignore[method-assign]
    first.most_steps = 1
    so_far = first.fit("target", *learnable(), PHASES, TRAINING, 3)
    assert (so_far.stopped, so_far.steps, so_far.planned) == (True, at, 63)
    assert told.reports[-1].step == at

    told = Quiet()
    second = fit_loop(tmp_path / "b", told, after=begun).fit("target", *learnable(), PHASES, TRAINING, 3)
    assert [report for report in told.reports if isinstance(report, Resumed)] == [
        Resumed(stage="target", step=at, metric_prefix="")
    ]
    assert min(report.step for report in told.reports if isinstance(report, Metrics)) > at
    assert same(straight.network.weights, second.network.weights)
    assert (straight.best, straight.steps) == (second.best, second.steps)


def test_early_stopping_ends_the_fit_and_the_best_numbers_are_restored(tmp_path: Path) -> None:
    whole, fit_spec = learnable()
    told = Quiet()
    training = TrainingSpec(early_stopping=EarlyStopping(patience=4))
    done = fit_loop(tmp_path, told).fit("target", whole, fit_spec, [Phase(2000, 1e-2)], training, 0)
    looks = [report for report in told.reports if isinstance(report, Metrics)]
    watched = [np.mean([report.values["val_digit_accuracy"], report.values["val_odd_accuracy"]]) for report in looks]
    best = int(np.argmax(watched))
    assert done.steps == looks[-1].step == looks[best].step + 4 * fit_spec.epoch_steps < 2000
    assert done.best == {"metric": "val_mean", "value": watched[best], "step": looks[best].step}
    assert done.weights == "best"
    made = fit_loop(tmp_path / "again")
    logits = made.logits(done.network, fit_spec.checks["odd"].inputs)["odd"]
    assert ((logits[:, 0] > 0) == fit_spec.checks["odd"].values).mean() == looks[best].values["val_odd_accuracy"]


def test_patience_spent_in_one_phase_leaves_the_next_one_all_its_steps(tmp_path: Path) -> None:
    whole, fit_spec = learnable()
    training = TrainingSpec(early_stopping=EarlyStopping(patience=2), schedule="cosine")
    phases = [Phase(1000, 1e-9), Phase(10, 5e-3)]  # the first learns nothing and is given up
    told = Quiet()
    begun = fit_loop(tmp_path / "a", told)
    done = begun.fit("target", whole, fit_spec, phases, training, 3)
    assert done.steps == 3 * fit_spec.epoch_steps + 10
    rates = [report.values["learning_rate"] for report in told.reports if isinstance(report, Metrics)]
    assert rates[2] < 2e-9 < rates[3] < 5e-3

    stop = threading.Event()
    first = fit_loop(tmp_path / "b", None, stop, after=begun)
    step = first.progress.step

    def counted(stage: str, number: int, *rest: Any) -> None:
        step(stage, number, *rest)
        if number == 3 * fit_spec.epoch_steps + 2:
            stop.set()

    first.progress.step = counted  # type: ignore[method-assign]
    first.most_steps = 1
    assert first.fit("target", *learnable(), phases, training, 3).stopped
    second = fit_loop(tmp_path / "b", after=begun).fit("target", *learnable(), phases, training, 3)
    assert second.steps == done.steps
    assert same(done.network.weights, second.network.weights)


def test_metrics_name_every_loss_and_weight_and_progress_every_stage(tmp_path: Path) -> None:
    whole, fit_spec = learnable()
    told = Quiet()
    fit_loop(tmp_path, told).fit("treated/1", whole, fit_spec, [Phase(30, 1e-2)], TrainingSpec(), 0)
    rows = [report for report in told.reports if isinstance(report, Metrics)]
    assert [row.step for row in rows] == [15, 30]  # three epochs of five steps are the least between two looks
    names = [
        "loss",
        "digit_loss",
        "digit_weight",
        "digit_weighted_loss",
        "odd_loss",
        "odd_weight",
        "odd_weighted_loss",
        "learning_rate",
        "val_digit_accuracy",
        "val_odd_accuracy",
    ]
    assert set(rows[0].values) == {f"treated/1/{name}" for name in names}
    assert all(value is not None for row in rows for value in row.values.values())
    assert told.reports[1].step == 1  # progress at once: a client sees that it has begun
    assert isinstance(told.reports[1], Progress)


def test_checkpoints_come_each_epoch_where_they_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "CHECKPOINT_SHARE", 0)
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0)
    whole, fit_spec = learnable()
    told = Quiet()
    fit_loop(tmp_path, told).fit("target", whole, fit_spec, [Phase(23, 1e-2)], TrainingSpec(), 0)
    assert [report.step for report in told.reports if isinstance(report, Checkpoint)] == [5, 10, 15, 20]


@pytest.mark.parametrize(("words", "count"), [({}, 10), ({"every_epochs": 16}, 5), ({"every_seconds": 0.25}, 39)])
def test_short_epochs_are_saved_once_a_second_or_as_often_as_was_asked(
    words: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In ten seconds of eight epochs each."""
    now = 0.0
    monkeypatch.setattr(fit, "time", SimpleNamespace(monotonic=lambda: now))
    clock, saves = fit.CheckpointSchedule(TrainingSpec(checkpoint=CheckpointSpec(**words))), 0
    for epoch in range(1, 81):
        now += 0.125
        if clock.due(epoch):
            with clock.saving(epoch):
                saves += 1
    assert saves == count


@pytest.mark.parametrize(
    ("weighting", "when"), [(None, "at step 1 of 30"), (uncertainty.Spec(), "before the first step")]
)
def test_a_loss_that_is_not_finite_stops_the_fit_at_once(weighting: Any, when: str, tmp_path: Path) -> None:
    whole, fit_spec = learnable()
    fit_spec = replace(fit_spec, loss_spec=replace(fit_spec.loss_spec, weighting=weighting))
    whole.weights["dense1"][0][0, 0] = np.nan
    with pytest.raises(Failure) as caught:
        fit_loop(tmp_path).fit("target", whole, fit_spec, [Phase(30, 1e-2)], TrainingSpec(), 0)
    assert caught.value.code == "loss_not_finite"
    assert when in caught.value.message


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_learns_and_keeps_full_numbers(precision: str, tmp_path: Path) -> None:
    whole, fit_spec = learnable()
    whole.precision = precision
    done = fit_loop(tmp_path).fit("target", whole, fit_spec, [Phase(60, 1e-2)], TrainingSpec(precision=precision), 0)  # type: ignore[arg-type]
    assert {array.dtype for arrays in done.network.weights.values() for array in arrays} == {np.dtype(np.float32)}
    assert done.best is not None
    assert done.best["value"] > 0.6


CLASSES = Task("digit", "multiclass", "digit", 10, tuple("abcdefghij"))
CNN = {"arch": "cnn-small", "dropout": 0.25, "batch_norm": True}


def test_what_was_fitted_and_asked_before_changes_no_bit(tmp_path: Path) -> None:
    """Batches of 64 before those of 60, and 300 rows before 20: in a new process, after a restart, there was nothing before."""
    shape = InputSchema(kind="image", shape=[28, 28, 1], scale=255.0)
    whole = network([CLASSES], architecture=CNN, shape=shape)
    data = batch_source(whole, {"digit": stored(CLASSES, 90)}, 60)
    loss_spec = LossSpec({"d": ["digit"]}, whole.tasks)
    rows = np.random.default_rng(3).integers(0, 256, (300, 28, 28, 1)).astype(np.uint8)

    def fitted(made: fit.FitLoop, size: int) -> Network:
        fit_spec = FitSpec(loss_spec, {"d": replace(data, samplers=[Sampler(np.arange(90), size, 0)])})
        return made.fit("target", whole, fit_spec, [Phase(20, 1e-3)], TrainingSpec(), 1).network

    fresh, used = fit_loop(tmp_path / "a"), fit_loop(tmp_path / "b")
    fitted(used, 64)
    used.logits(whole, rows)
    ours, theirs = fitted(fresh, 60), fitted(used, 60)
    assert same(ours.weights, theirs.weights)
    for count in (20, 300):
        assert np.array_equal(fresh.logits(ours, rows[:count])["digit"], used.logits(ours, rows[:count])["digit"])


@pytest.mark.parametrize(("precision", "optimizer"), [("float32", "adamw"), ("mixed_float16", "sgd")])
def test_fits_at_several_rates_share_what_is_compiled_and_not_a_bit(
    precision: str, optimizer: str, tmp_path: Path
) -> None:
    """As the arms of a transfer, whose control learns at another rate."""
    whole = replace(network([DIGIT]), precision=precision)
    fit_spec = FitSpec(
        LossSpec({"d": ["digit"]}, whole.tasks), {"d": batch_source(whole, {"digit": stored(DIGIT, 24)}, 8)}
    )

    def fitted(made: fit.FitLoop, rate: float) -> Network:
        training = TrainingSpec.model_validate({"optimizer": {"name": optimizer, "learning_rate": rate}})
        return made.fit(f"treated/{rate}", whole, fit_spec, [Phase(6, rate)], training, 1).network

    alone = {rate: fitted(fit_loop(tmp_path / str(rate)), rate) for rate in (1e-2, 1e-3)}
    assert not same(alone[1e-2].weights, alone[1e-3].weights)
    together = fit_loop(tmp_path / "together")
    for rate in (1e-2, 1e-3, 1e-2):
        assert same(fitted(together, rate).weights, alone[rate].weights)
        together = fit_loop(tmp_path / "again", after=together)
    assert len(together.model_cache._compiled) == 1


@pytest.mark.parametrize("batch_norm", [True, False])
def test_arms_that_differ_in_frozen_norms_alone_are_one_program_where_there_are_none(batch_norm: bool) -> None:
    whole, fit_spec = learnable()
    chosen = architectures.resolve({"arch": "mlp", "units": [4], "batch_norm": batch_norm})
    whole, cache = replace(whole, architecture=chosen, weights={}), ModelCache()
    cache.keras_layers(whole)
    made = {
        id(cache.compiled(whole, fit_spec, Phase(9, rate, norms=norms), TrainingSpec()))
        for norms in (True, False)
        for rate in (1e-2, 1e-3)
    }
    assert len(made) == (2 if batch_norm else 1)
