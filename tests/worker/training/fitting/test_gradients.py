"""The tasks' gradients as the backend gives them, the step made of them, and the table of who disturbs whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.spec.registry import modules
from tests.worker.training import small
from tests.worker.training.fitting.weighted import TASKS, fit_spec_of, loss_spec_of
from tests.worker.training.small import DIGIT, ODD, PICTURE, batch_source, compiled, network, same, stored
from worker.training.data import batches
from worker.training.fitting.conflicts import Conflicts
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Phase
from worker.training.networks.network import Network
from worker.training.objectives import logits as soft

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
]

RATE = 1e-2
NORMED = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.5}
Moves = dict[str, list[np.ndarray]]


def moved(before: Network, after: Moves) -> Moves:
    return {name: [a - b for a, b in zip(after[name], before.weights[name], strict=True)] for name in after}


def by_task(whole: Network, batch: batches.Batch) -> list[Moves]:
    """What one SGD step on each task alone moves: −rate · its gradient, found by Keras's own train step."""
    found = []
    for task in TASKS:
        made = compiled(whole, LossSpec({"d": [task.name]}, {task.name: task}), rate=RATE)
        made.step((batch[0], {key: values for key, values in batch[1].items() if key.split("/")[0] == task.name}))
        found.append(moved(whole, made.keras_layers.read()))
    return found


def flat(moves: Moves, layers: list[str]) -> np.ndarray:
    return np.concatenate([array.ravel() for name in layers if name in moves for array in moves[name]]) / -RATE


def batch_of(whole: Network) -> batches.Batch:
    return batches.batch({"d": batch_source(whole, {task.name: stored(task, 8) for task in TASKS}, 8)}, 0)


def test_dot_products_are_those_of_the_tasks_own_gradients() -> None:
    whole = network(TASKS)
    batch = batch_of(whole)
    made = compiled(whole, loss_spec_of("equal", *TASKS), rate=RATE)
    g = np.stack([flat(moves, whole.trunk) for moves in by_task(whole, batch)])
    before = made.state()
    gram = made.gram(batch)
    assert gram is not None
    assert gram == pytest.approx(g @ g.T, rel=2e-3, abs=1e-3)  # moves of SGD in float32 are coarse
    assert all(np.array_equal(a, b) for a, b in zip(before, made.state(), strict=True))
    batch[1]["odd/labelled"][:] = 0
    gram = made.gram(batch)
    assert gram is not None
    assert np.isnan(gram[1]).all()
    assert np.isfinite(gram[np.ix_([0, 2], [0, 2])]).all()


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "cagrad", "gradnorm"])
def test_a_step_is_the_weighted_sum_on_the_trunk_and_the_plain_gradient_on_the_heads(name: str) -> None:
    whole = network(TASKS)
    batch = batch_of(whole)
    alone = by_task(whole, batch)
    made = compiled(whole, loss_spec_of(name, *TASKS), rate=RATE)
    if name == "gradnorm":
        made.learner.weighting.w.assign([0.5, 1.5, 1.0])
    logs = made.step(batch)
    weights = [logs[f"{task.name}_weight"] for task in TASKS]
    now = moved(whole, made.keras_layers.read())
    expected = sum(weight * flat(moves, whole.trunk) for weight, moves in zip(weights, alone, strict=True))
    scale = float(np.abs(expected).max())
    assert flat(now, whole.trunk) == pytest.approx(expected, abs=2e-3 * scale)
    for task, moves, weight in zip(TASKS, alone, weights, strict=True):
        head = whole.head_layers[task.name]
        own = weight if name == "gradnorm" else 1.0
        assert flat(now, head) == pytest.approx(own * flat(moves, head), rel=1e-3, abs=1e-3)
    if name == "gradnorm":
        assert weights == pytest.approx([0.5, 1.5, 1.0])
    if name in ("mgda", "gradnorm"):
        assert sum(weights) == pytest.approx(3, abs=1e-5)


def test_a_weighting_is_told_of_the_gradients_on_all_that_is_shared_and_on_its_last_layer() -> None:
    whole = network(TASKS, architecture={"arch": "mlp", "units": [6, 5]})
    batch = batch_of(whole)
    alone = by_task(whole, batch)
    made, told = compiled(whole, loss_spec_of("gradnorm", *TASKS), rate=RATE), []
    weigh = made.learner.weighting.weigh
    made.learner.weighting.weigh = lambda moment: (told.append(moment), weigh(moment))[1]
    before = made.state()
    for absent in ((), ("odd",)):
        made.restore(before)
        for name in absent:
            batch[1][f"{name}/labelled"][:] = 0
        logs = made.step(batch)
        here = [k for k, task in enumerate(TASKS) if task.name not in absent]
        moment = told[-1]
        assert moment.places.tolist() == here
        assert moment.losses == pytest.approx([logs[f"{TASKS[k].name}_loss"] for k in here])
        for found, layers in ((moment.gram, whole.trunk), (moment.last, ["dense2"])):
            g = np.stack([flat(alone[k], layers) for k in here])
            assert found == pytest.approx(g @ g.T, rel=5e-3, abs=1e-3)
    assert not np.allclose(told[0].gram, told[0].last, rtol=0.05)


def test_weights_of_1_make_the_step_of_equal_with_batch_norm_dropout_teachers_and_regularisers() -> None:
    """Both ways through the backend: the same numbers, statistics and dropout masks after three steps of Adam."""
    tasks = [DIGIT, ODD]
    whole = network(tasks, architecture=NORMED, shape=PICTURE)
    data = batch_source(whole, {task.name: stored(task, 16) for task in tasks}, 8)
    data.given["digit/teacher/0"] = np.random.default_rng(3).standard_normal((16, 4)).astype(np.float32)
    results, logged = [], []
    for name in ("equal", "pcgrad"):
        loss_spec = replace(
            loss_spec_of(name, *tasks),
            objectives={"digit": [soft.Spec(temperature=3.0, weight=0.7)]},
            teachers={"digit": (1.0,)},
            label_weight=0.25,
        )
        made = compiled(whole, loss_spec, "adam", 1e-3)
        made.keras_layers.reseed(7)
        if name == "pcgrad":
            made.learner.weighting.weigh = lambda moment: np.ones(len(moment.losses))
        logged.append([made.step(batches.batch({"d": data}, step)) for step in range(3)])
        results.append(made.keras_layers.read())
    assert same(*results, tolerance=1e-5)
    for one, other in zip(*logged, strict=True):
        assert set(one) == set(other)
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


def test_a_whole_fit_samples_the_conflicts_at_each_evaluation(tmp_path: Path) -> None:
    whole = network(TASKS)
    made = small.fit_loop(tmp_path)
    made.model_cache.keras_layers(whole)
    from app.spec.training import TrainingSpec

    fit_spec = fit_spec_of(whole, loss_spec_of("equal", *TASKS))
    trained = made.fit("target", whole, fit_spec, [Phase(40, 1e-2)], TrainingSpec(), 0)
    assert trained.conflicts is not None
    pairs = {tuple(pair["tasks"]): pair for pair in trained.conflicts["pairs"]}
    assert set(pairs) == {("digit", "odd"), ("digit", "size"), ("odd", "size")}
    for pair in pairs.values():
        assert pair["samples"] == 3  # every 16 steps (epochs of 4, at least 15 apart), and the last
        assert -1 <= pair["cosine"] <= 1
    single = fit_spec_of(network([DIGIT]), LossSpec({"d": ["digit"]}, {"digit": DIGIT}))
    assert (
        small.fit_loop(tmp_path / "one")
        .fit("target", network([DIGIT]), single, [Phase(4, 1e-2)], TrainingSpec(), 0)
        .conflicts
        is None
    )


def test_a_frozen_trunk_has_nothing_to_compare() -> None:
    whole = network(TASKS)
    made = compiled(whole, loss_spec_of("equal", *TASKS), frozen=whole.trunk, norms=True)
    assert made.gram(batch_of(whole)) is None


def test_the_table_says_who_disturbs_whom() -> None:
    conflicts = Conflicts(["box", "kind", "face"])
    for other in (-1.0, -3.0):
        g = np.array([(1.0, 0.0), (other, 0.0), (0.0, 2.0)])
        conflicts.add(g @ g.T)
    g = np.array([(1.0, 1.0), (1.0, 1.0), (np.nan, np.nan)])  # no label of the third task
    conflicts.add(g @ g.T)
    conflicts.add(None)
    table = conflicts.table()
    assert table is not None
    worst = table["pairs"][0]
    assert worst["tasks"] == ["box", "kind"]
    assert worst["cosine"] == pytest.approx((-1 - 1 + 1) / 3, abs=1e-4)
    assert (worst["first"], worst["last"], worst["samples"]) == (-1, 1, 3)
    assert worst["below_0"] == pytest.approx(2 / 3, abs=1e-4)
    # Σ box·kind = −1 − 3 + 2; Σ ‖box‖² = 1 + 1 + 2; Σ ‖kind‖² = 1 + 9 + 2
    assert worst["effect_on"] == {"box": -0.5, "kind": pytest.approx(-2 / 12, abs=1e-4)}
    assert [pair["cosine"] for pair in table["pairs"][1:]] == [0, 0]
    assert [pair["samples"] for pair in table["pairs"][1:]] == [2, 2]
    assert table["sentence"].startswith(
        "The tasks that disturb each other most are box and kind: mean cosine -0.33 of 3"
    )
    assert Conflicts(["a"]).table() is None


def test_a_gradient_of_0_has_no_cosine() -> None:
    conflicts = Conflicts(["a", "b"])
    conflicts.add(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert conflicts.table() is None


def test_the_catalog_knows_every_name() -> None:
    wanted = {"equal", "fixed", "uncertainty", "dwa", "rlw", "gls", "imtl_l", "stch", "famo"}
    assert wanted | {"gradnorm", "mgda", "pcgrad", "cagrad"} <= set(modules("weighting"))
