"""One step of training against what it must be: masks, several data sets, frozen layers, teachers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from app.spec.training import SCRATCH_RATES, TrainingSpec
from tests.worker.training import small
from tests.worker.training.small import DIGIT, ODD, PICTURE, SIGNS, SIZE, batch_source, compiled, network, same, stored
from worker.reports import Metrics
from worker.training.data import batches
from worker.training.data.batches import Sampler
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks import build
from worker.training.networks.network import Network
from worker.training.objectives import logits as soft
from worker.training.tasks import heads
from worker.training.weighting import equal

# Keras 3.15 converts TensorFlow's variables in a way that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),  # of a head that a test leaves unused on purpose
]

TASKS = [DIGIT, ODD, SIZE, SIGNS]


def missing(values: np.ndarray, rows: list[int]) -> np.ndarray:
    values = values.copy()
    values[rows] = -1 if values.dtype.kind == "i" else np.nan
    return values


def loss_spec_of(*tasks: heads.Task) -> LossSpec:
    return LossSpec({"d": [task.name for task in tasks]}, {task.name: task for task in tasks})


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.type)
def test_a_step_with_missing_labels_equals_the_step_without_those_rows(task: heads.Task) -> None:
    whole = network([task])
    values, gone = stored(task, 12), [1, 4, 5, 9]
    masked = batch_source(whole, {task.name: missing(values, gone)}, 12)
    there = np.setdiff1d(np.arange(12), gone)
    skipped = batch_source(whole, {task.name: values}, 12)
    skipped.samplers = [Sampler(there, len(there), 0)]
    results = []
    for one in (masked, skipped):
        made = compiled(whole, loss_spec_of(task))
        made.step(batches.batch({"d": one}, 0))
        results.append(made.keras_layers.read())
    assert same(*results, tolerance=1e-6)
    assert not same(results[0], whole.weights, tolerance=1e-4)  # it did learn


def test_each_task_of_a_batch_has_its_own_mask() -> None:
    """One step on rows of which some miss one label, some the other: the sum of each task's step on its own labelled rows."""
    whole = network([DIGIT, ODD])
    columns = {"digit": stored(DIGIT, 12), "odd": stored(ODD, 12)}
    gone = {"digit": [0, 1, 2, 3, 4], "odd": [4, 10, 11]}
    masked = batch_source(whole, {name: missing(values, gone[name]) for name, values in columns.items()}, 12)

    def moved(tasks: list[heads.Task], data: batches.BatchSource) -> dict[str, list[np.ndarray]]:
        made = compiled(whole, loss_spec_of(*tasks))
        made.step(batches.batch({"d": data}, 0))
        after = made.keras_layers.read()
        return {name: [b - a for a, b in zip(whole.weights[name], after[name], strict=True)] for name in after}

    apart = []
    for task in (DIGIT, ODD):
        alone = batch_source(whole, {task.name: columns[task.name]}, 12)
        there = np.setdiff1d(np.arange(12), gone[task.name])
        alone.samplers = [Sampler(there, len(there), 0)]
        apart.append(moved([task], alone))
    summed = {name: [a + b for a, b in zip(apart[0][name], apart[1][name], strict=True)] for name in apart[0]}
    assert same(moved([DIGIT, ODD], masked), summed, tolerance=1e-6)
    assert not same(apart[0], summed, tolerance=1e-4)


def test_labels_missing_within_a_row_are_left_out_of_its_mean() -> None:
    values = stored(SIGNS, 4)
    values[2, 1] = np.nan
    y = heads.targets(SIGNS, values)
    logits = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    value, count = heads.loss(SIGNS, y, logits)
    each = np.logaddexp(0, logits) - logits * np.nan_to_num(values)
    rows = [each[0].mean(), each[1].mean(), each[2, [0, 2]].mean(), each[3].mean()]
    assert float(count) == 4
    assert float(value) == pytest.approx(np.mean(rows), abs=1e-6)


def test_a_task_without_a_label_in_the_batch_is_left_out() -> None:
    whole = network([DIGIT, ODD])
    odd = stored(ODD, 8)
    made = compiled(whole, replace(loss_spec_of(DIGIT, ODD), weighting=equal.Spec()))
    logs = made.step(batches.batch({"d": batch_source(whole, {"digit": np.full(8, -1, np.int32), "odd": odd}, 8)}, 0))
    alone = compiled(whole, loss_spec_of(ODD))
    alone.step(batches.batch({"d": batch_source(whole, {"odd": odd}, 8)}, 0))
    assert np.isnan(logs["digit_loss"])
    assert logs["loss"] == pytest.approx(logs["odd_loss"])
    assert same(made.keras_layers.read(), alone.keras_layers.read(), tolerance=1e-6)


def test_several_data_sets_sum_their_gradients_and_touch_only_their_heads() -> None:
    whole = network([DIGIT, ODD])
    one, other = (
        batch_source(whole, {"digit": stored(DIGIT, 8)}, 8, seed=1),
        batch_source(whole, {"odd": stored(ODD, 8)}, 8, seed=2),
    )

    def moved(*names: str) -> dict[str, list[np.ndarray]]:
        sets = {"a": ("digit", one, DIGIT), "b": ("odd", other, ODD)}
        loss_spec = LossSpec(
            {name: [sets[name][0]] for name in names}, {sets[name][0]: sets[name][2] for name in names}
        )
        made = compiled(whole, loss_spec)
        made.step(batches.batch({name: sets[name][1] for name in names}, 0))
        after = made.keras_layers.read()
        return {name: [b - a for a, b in zip(whole.weights[name], after[name], strict=True)] for name in after}

    both, first, second = moved("a", "b"), moved("a"), moved("b")
    summed = {name: [a + b for a, b in zip(first[name], second[name], strict=True)] for name in first}
    assert same(both, summed, tolerance=1e-6)
    assert not any(array.any() for array in first["odd_logits"])


def test_heads_are_seeded_by_name_so_swapped_tasks_change_nothing() -> None:
    one, other = network([DIGIT, ODD], seed=5), network([ODD, DIGIT], seed=5)
    assert same(one.weights, other.weights)
    columns = {"digit": stored(DIGIT, 16), "odd": stored(ODD, 16)}
    results = []
    for whole, tasks in ((one, (DIGIT, ODD)), (other, (ODD, DIGIT))):
        made = compiled(whole, loss_spec_of(*tasks), "adam", 1e-2)
        for step in range(5):
            made.step(batches.batch({"d": batch_source(whole, columns, 8)}, step))
        results.append(made.keras_layers.read())
    assert same(*results, tolerance=1e-5)
    assert not same(network([DIGIT], seed=6).weights, network([DIGIT], seed=7).weights)


NORMED = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.5}
NORMS = ("norm1", "norm2")


def test_a_frozen_trunk_keeps_every_number_and_statistic_and_drops_nothing_out() -> None:
    whole = network([DIGIT], architecture=NORMED, shape=PICTURE)
    made = compiled(whole, loss_spec_of(DIGIT), frozen=whole.trunk, norms=True)
    data = {"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)}
    first = made.step(batches.batch(data, 0))
    made.step(batches.batch(data, 1))
    after = made.keras_layers.read()
    for name in whole.trunk:
        if name in after:
            assert same({name: whole.weights[name]}, {name: after[name]}), name
    assert not same({"l": whole.weights["digit_logits"]}, {"l": after["digit_logits"]})
    inference = build.keras_layers(whole)
    x, y = batches.batch(data, 0)
    logits = inference.forward.predict_on_batch(x["d"])["digit"]
    assert first["loss"] == pytest.approx(float(heads.loss(DIGIT, y, logits)[0]), abs=1e-6)


def test_frozen_batch_norm_stays_while_all_else_learns() -> None:
    whole = network([DIGIT], architecture=NORMED, shape=PICTURE)
    rng = np.random.default_rng(1)
    for name in NORMS:  # statistics that a step would move
        whole.weights[name] = [
            np.abs(rng.standard_normal(array.shape)).astype(np.float32) for array in whole.weights[name]
        ]
    made = compiled(whole, loss_spec_of(DIGIT), norms=True)
    data = {"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)}
    for step in range(3):
        made.step(batches.batch(data, step))
    after = made.keras_layers.read()
    for name in after:
        equal_now = same({name: whole.weights[name]}, {name: after[name]})
        assert equal_now == (name in NORMS), name


def test_trainable_batch_norm_moves_once_a_step() -> None:
    whole = network([DIGIT], architecture=NORMED, shape=PICTURE)
    objectives = {"digit": [soft.Spec(temperature=4.0), soft.Spec(temperature=2.0)]}
    given = {"digit": (1.0,)}
    moved = []
    for loss_spec in (loss_spec_of(DIGIT), replace(loss_spec_of(DIGIT), objectives=objectives, teachers=given)):
        data = batch_source(whole, {"digit": stored(DIGIT, 8)}, 8)
        data.given["digit/teacher/0"] = np.zeros((8, 4), np.float32)
        made = compiled(whole, loss_spec, rate=1e-9)
        made.step(batches.batch({"d": data}, 0))
        moved.append({"norm1": made.keras_layers.read()["norm1"]})
    assert same(moved[0], moved[1], tolerance=1e-6)  # two objectives, still one pass
    assert not same(moved[0], {"norm1": whole.weights["norm1"]}, tolerance=1e-4)


def test_teachers_and_labels_add_up_as_stated() -> None:
    whole = network([DIGIT])
    data = batch_source(whole, {"digit": stored(DIGIT, 8)}, 8)
    teacher = np.random.default_rng(3).standard_normal((8, 4)).astype(np.float32)
    data.given["digit/teacher/0"] = teacher
    spec = soft.Spec(temperature=3.0, weight=0.7)
    loss_spec = replace(
        loss_spec_of(DIGIT), objectives={"digit": [spec]}, teachers={"digit": (2.0,)}, label_weight=0.25
    )
    x, y = batches.batch({"d": data}, 0)
    logits = build.keras_layers(whole).forward.predict_on_batch(x["d"])["digit"]
    p, q = (np.exp(z / 3 - np.log(np.exp(z / 3).sum(1, keepdims=True))) for z in (logits, y["digit/teacher/0"]))
    divergence = 9 * (q * np.log(q / p)).sum(1).mean()
    labels = float(heads.loss(DIGIT, y, logits)[0])
    logs = compiled(whole, loss_spec).step((x, y))
    assert logs["logits"] == pytest.approx(divergence, rel=1e-4)
    assert logs["label_loss"] == pytest.approx(labels, rel=1e-5)
    assert logs["loss"] == pytest.approx(0.25 * labels + 0.7 * divergence, rel=1e-4)


def test_unlabelled_rows_give_no_gradient_through_the_labels() -> None:
    whole = network([DIGIT])
    values = stored(DIGIT, 16)
    values[8:] = -1
    both, labelled = batch_source(whole, {"digit": values}, 16), batch_source(whole, {"digit": values}, 16)
    labelled.samplers = [Sampler(np.arange(8), 8, 0)]
    results = []
    for data in (both, labelled):
        made = compiled(whole, loss_spec_of(DIGIT))
        made.step(batches.batch({"d": data}, 0))
        results.append(made.keras_layers.read())
    assert same(*results, tolerance=1e-6)


def test_cached_teacher_logits_equal_online_ones_after_twenty_steps() -> None:
    whole, teacher = (
        network([DIGIT]),
        network([DIGIT], seed=9, architecture={"arch": "mlp", "units": [32], "dropout": 0.3}),
    )
    keras_layers = build.keras_layers(teacher)

    def ask(raw: np.ndarray) -> np.ndarray:
        return np.asarray(keras_layers.forward.predict_on_batch(teacher.scaling(raw))["digit"])

    loss_spec = replace(
        loss_spec_of(DIGIT), objectives={"digit": [soft.Spec(temperature=4.0)]}, teachers={"digit": (1.0,)}
    )
    results = []
    for online in (False, True):
        data = batch_source(whole, {"digit": stored(DIGIT, 40)}, 16)
        if online:
            data.computed.append(lambda raw: {"digit/teacher/0": ask(raw)})
        else:
            data.given["digit/teacher/0"] = ask(data.inputs)
        made = compiled(whole, loss_spec, "adam", 1e-2)
        for step in range(20):
            made.step(batches.batch({"d": data}, step))
        results.append(made.keras_layers.read())
    assert same(*results, tolerance=1e-5)
    assert same(keras_layers.read(), teacher.weights)  # teaching never changes the teacher


def fit_spec_of(whole: Network, n: int = 32) -> FitSpec:
    return FitSpec(loss_spec_of(DIGIT), {"d": batch_source(whole, {"digit": stored(DIGIT, n)}, 8)})


def test_lp_ft_has_fine_tuning_and_feature_extraction_as_its_limits(tmp_path: Path) -> None:
    whole = network([DIGIT])
    head, tuned = Phase(12, 1e-2, frozenset(whole.trunk), True), Phase(12, 1e-3, norms=True)
    assert same(
        small.fit(tmp_path / "a", whole, fit_spec_of(whole), [replace(head, steps=0), tuned]).weights,
        small.fit(tmp_path / "b", whole, fit_spec_of(whole), [tuned]).weights,
    )
    assert same(
        small.fit(tmp_path / "c", whole, fit_spec_of(whole), [head, replace(tuned, steps=0)]).weights,
        small.fit(tmp_path / "d", whole, fit_spec_of(whole), [head]).weights,
    )
    both = small.fit(tmp_path / "e", whole, fit_spec_of(whole), [replace(head, steps=6), replace(tuned, steps=6)])
    assert not same({"d": both.weights["dense1"]}, {"d": whole.weights["dense1"]})


def test_the_second_stage_of_lp_ft_begins_where_the_first_one_ended(tmp_path: Path) -> None:
    """The loss of its first batch, before its step, is what the head of the first stage makes of that batch."""
    normed = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True}
    whole, n = network([DIGIT], architecture=normed, shape=PICTURE), 5
    head, everything = Phase(n, 0.1, frozenset(whole.trunk), True), Phase(1, 0.1, norms=True)
    sums, ends = [], []
    for phases in ([head], [head, everything]):
        told = small.Quiet()
        made = small.fit_loop(tmp_path / str(len(phases)), told)
        made.model_cache.keras_layers(whole)
        ends.append(made.fit("target", whole, fit_spec_of(whole), phases, TrainingSpec(), 0).network)
        (mean,) = (one.values["loss"] for one in told.reports if isinstance(one, Metrics))
        sums.append(mean * sum(phase.steps for phase in phases))
    x, y = batches.batch(fit_spec_of(whole).batch_sources, n)
    expected = float(heads.loss(DIGIT, y, build.keras_layers(ends[0]).forward.predict_on_batch(x["d"])["digit"])[0])
    assert sums[1] - sums[0] == pytest.approx(expected, abs=1e-5)
    assert not same({"c": ends[1].weights["conv1"]}, {"c": whole.weights["conv1"]})


def test_a_learner_that_is_used_again_trains_as_a_new_one(tmp_path: Path) -> None:
    wide = {"arch": "mlp", "units": [8], "dropout": 0.4}
    whole, other = network([DIGIT], architecture=wide), network([DIGIT], seed=3, architecture=wide)
    reused = small.fit_loop(tmp_path)

    for number, (one, seed) in enumerate(((whole, 0), (other, 4), (whole, 0))):
        again = reused.fit(
            f"treated/{number}", one, fit_spec_of(one), [Phase(10, SCRATCH_RATES["adam"])], TrainingSpec(), seed
        )
    fresh = small.fit(tmp_path / "fresh", whole, fit_spec_of(whole), [Phase(10, SCRATCH_RATES["adam"])], seed=0)
    assert same(again.network.weights, fresh.weights)


def test_regression_is_learnt_standardised_and_answered_in_the_users_units() -> None:
    values = np.array([[14.0, -3.0], [np.nan, -2.5]], np.float32)
    y = heads.targets(SIZE, values)
    assert np.allclose(y["size"], [[1.0, 0.0], [0.0, 1.0]])
    assert np.array_equal(y["size/labelled"], [[1, 1], [0, 1]])
    assert np.allclose(heads.answers(SIZE, np.array([[1.0, 0.0]])), [[14.0, -3.0]])
    fitted = heads.fit_scale(
        replace(SIZE, mean=None, std=None), np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]], np.float32)
    )
    assert fitted.mean == (2.0, 5.0)
    assert fitted.std == (1.0, 1.0)  # a constant column is only shifted


def test_regularisers_of_layers_count() -> None:
    whole = network([DIGIT])
    made = compiled(whole, loss_spec_of(DIGIT))
    layer = made.keras_layers.layers["dense1"]
    layer.kernel.regularizer = keras.regularizers.L2(100.0)
    data = batches.batch({"d": batch_source(whole, {"digit": stored(DIGIT, 8)}, 8)}, 0)
    plain = compiled(whole, loss_spec_of(DIGIT)).step(data)["loss"]
    penalty = 100.0 * float((whole.weights["dense1"][0] ** 2).sum())
    assert made.step(data)["loss"] == pytest.approx(plain + penalty, rel=1e-4)
