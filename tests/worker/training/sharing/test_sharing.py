"""What each sharing computes, trains and keeps: against NumPy, hand-derived gradients, and the limits in which two are one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.spec.models import HeadSpec, Manifest
from app.spec.registry import modules
from tests.worker.training import small
from tests.worker.training.sharing import naive
from tests.worker.training.small import DIGIT, ODD, PICTURE, SIZE, batch_source, compiled, network, same, stored
from worker.training.data import batches
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.kept import export, formats
from worker.training.networks import build
from worker.training.networks.network import Network, Weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
]

TASKS = [DIGIT, ODD, SIZE]
NAMES = sorted(modules("sharing"))
TABLE_TRUNK = {"arch": "mlp", "units": [6, 4], "activation": "tanh"}
PICTURE_TRUNK = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True}
RANDOM = {"arch": "mlp", "units": [6, 4], "batch_norm": True, "dropout": 0.4}


def words(name: str, **more: Any) -> Any:
    return modules("sharing")[name].Spec(**more)


def made(name: str, tasks: Any = TASKS, trunk: Any = TABLE_TRUNK, shape: Any = small.TABLE, **more: Any) -> Network:
    return network(tasks, 0, trunk, shape, sharing=words(name, **more))


def disturbed(whole: Network, seed: int = 1) -> Network:
    """With every number moved a little: biases, statistics and stitches as after some training."""
    rng = np.random.default_rng(seed)
    moved = {
        name: [(array + rng.uniform(0.01, 0.3, array.shape)).astype(np.float32) for array in arrays]
        for name, arrays in whole.weights.items()
    }
    return replace(whole, weights=moved)


def inputs(whole: Network, n: int = 5) -> np.ndarray:
    rng = np.random.default_rng(7)
    if whole.input.kind == "image":
        return rng.uniform(0, 1, (n, *whole.input.shape)).astype(np.float32)
    return rng.standard_normal((n, *whole.input.shape)).astype(np.float32)


def outputs(whole: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(one) for name, one in build.keras_layers(whole).forward(x, training=False).items()}


def loss_spec_of(tasks: Any, weighting: str | None = None) -> LossSpec:
    chosen = None if weighting is None else modules("weighting")[weighting].Spec()
    return LossSpec({"d": [task.name for task in tasks]}, {task.name: task for task in tasks}, weighting=chosen)


def trained(whole: Network, names: dict[str, str] | None = None, steps: int = 3, **how: Any) -> Weights:
    """The network's numbers after some steps; layers renamed by `names`."""
    tasks = list(whole.tasks.values())
    one = compiled(whole, loss_spec_of(tasks), **how)
    one.keras_layers.reseed(4)
    columns = {task.name: stored(task, 16) for task in tasks}
    data = {"d": batch_source(whole, columns, 8)}
    for step in range(steps):
        one.step(batches.batch(data, step))
    return {(names or {}).get(name, name): arrays for name, arrays in one.keras_layers.read().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "shape"), [(TABLE_TRUNK, small.TABLE), (PICTURE_TRUNK, PICTURE)])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("hard_sharing", {}),
        ("mmoe", {"experts": 3}),
        ("cgc", {"experts": 2, "experts_per_task": 2}),
        ("ple", {"experts": 2, "experts_per_task": 1}),
        ("cross_stitch", {}),
        ("cross_stitch", {"per": "layer"}),
    ],
)
def test_it_computes_what_its_paper_says(name: str, more: dict[str, Any], trunk: Any, shape: Any) -> None:
    whole = disturbed(made(name, trunk=trunk, shape=shape, **more))
    x = inputs(whole)
    tasks = [task.name for task in TASKS]
    wanted = naive.FORWARD[name](naive.described(whole), whole.weights, x.astype(np.float64), tasks, whole.sharing)
    for task, found in outputs(whole, x).items():
        kernel, bias = whole.weights[f"{task}_logits"]
        assert found == pytest.approx(wanted[task] @ kernel + bias, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_numbers_are_counted_before_anything_is_built(name: str) -> None:
    whole = made(name, trunk={**PICTURE_TRUNK, "dropout": 0.2}, shape=PICTURE)
    layers = build.keras_layers(whole).layers
    for node in whole.graph.nodes:
        assert tuple(layers[node.name].output.shape[1:]) == node.shape
        assert layers[node.name].count_params() == node.parameters
    numbers = sum(
        array.size for layer, arrays in whole.weights.items() if not layer.endswith("_logits") for array in arrays
    )
    assert whole.graph.parameters == numbers


@pytest.mark.parametrize("name", ["mmoe", "cgc", "ple"])
def test_gates_are_positive_and_add_up_to_1(name: str) -> None:
    whole = disturbed(made(name))
    keras_layers = build.keras_layers(whole)
    gates = {node.name: keras_layers.layers[node.name].output for node in whole.graph.nodes if node.kind == "gate"}
    assert len(gates) == {"mmoe": 3, "cgc": 3, "ple": 7}[name]
    for shares in keras.Model(keras_layers.forward.input, gates)(20 * inputs(whole)).values():
        assert np.asarray(shares).min() >= 0
        assert np.asarray(shares).sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "more"), [("mmoe", {"experts": 1}), ("cgc", {"experts": 1, "experts_per_task": 0})])
def test_one_expert_for_all_is_hard_sharing_bit_by_bit(name: str, more: dict[str, Any]) -> None:
    """The same seed, dropout, BatchNorm, Adam: equal numbers at the start and after training, and equal answers."""
    plain, whole = made("hard_sharing", trunk=RANDOM), made(name, trunk=RANDOM, **more)
    names = {f"expert1-{layer}": layer for layer in plain.trunk}
    assert same({names.get(layer, layer): arrays for layer, arrays in whole.weights.items()}, plain.weights)
    x = inputs(whole)
    assert all(np.array_equal(one, outputs(plain, x)[task]) for task, one in outputs(whole, x).items())
    assert same(trained(whole, names, optimizer="adam"), trained(plain, optimizer="adam"))


def singles(tower: Callable[[str], str], whole: Network) -> dict[str, Network]:
    """Single nets with the numbers of each task's tower."""
    found = {}
    for task in TASKS:
        alone = made("hard_sharing", [task], whole.architecture.model_dump())
        mine = {layer: whole.weights[f"{tower(task.name)}-{layer}"] for layer in alone.trunk if layer in alone.weights}
        found[task.name] = replace(alone, weights={**alone.weights, **mine})
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "tower"),
    [
        ("cgc", {"experts": 0, "experts_per_task": 1}, "{}-expert1"),
        ("cross_stitch", {"alpha": 1.0}, "{}"),
    ],
)
def test_with_nothing_to_share_they_are_single_nets_bit_by_bit(name: str, more: dict[str, Any], tower: str) -> None:
    """Answers, and numbers after training; the stitches are held at 1 meanwhile."""
    trunk = {**RANDOM, "dropout": 0.0}
    whole = made(name, trunk=trunk, **more)
    x, alone = inputs(whole), singles(tower.format, whole)
    if name == "cross_stitch":  # each tower begins as the task's single net, its control, does
        assert all(
            same(one.weights, made("hard_sharing", [task], trunk).weights)
            for task, one in zip(TASKS, alone.values(), strict=True)
        )
    stitches = [node.name for node in whole.graph.nodes if node.kind == "stitch"]
    together, after = outputs(whole, x), trained(whole, frozen=stitches, optimizer="adam")
    for task, one in alone.items():
        assert np.array_equal(together[task], outputs(one, x)[task])
        names = {f"{tower.format(task)}-{layer}": layer for layer in one.trunk}
        mine = {
            names.get(layer, layer): arrays
            for layer, arrays in after.items()
            if layer in names or layer == f"{task}_logits"
        }
        assert same(mine, trained(one, optimizer="adam"))


def test_ple_of_one_level_is_cgc() -> None:
    one, other = made("ple", levels=1, experts=2), made("cgc", experts=2)
    assert (one.graph.nodes, one.graph.features) == (other.graph.nodes, other.graph.features)
    assert same(one.weights, other.weights)


@pytest.mark.slow
def test_stitches_begin_as_asked_and_learn() -> None:
    whole = made("cross_stitch", alpha=0.8)
    assert whole.weights["stitch1-odd"][0] == pytest.approx(np.tile([0.1, 0.8, 0.1], (6, 1)))
    assert made("cross_stitch", alpha=0.8, per="layer").weights["stitch2-digit"][0] == pytest.approx([0.8, 0.1, 0.1])
    after = trained(whole)
    assert all(
        not np.array_equal(after[f"stitch{n}-{task.name}"][0], whole.weights[f"stitch{n}-{task.name}"][0])
        for n in (1, 2)
        for task in TASKS
    )


def test_gradients_reach_experts_and_gates_as_derived_by_hand() -> None:
    """mmoe of two linear experts, squared errors, one step of SGD: with f_k = Σ g_ki·e_i and s_k = ∂L_k/∂f_k,

    ∂L/∂e_i = Σ_k g_ki·s_k and ∂L_k/∂z_ki = g_ki·(e_i·s_k − Σ_j g_kj·e_j·s_k), z_k = W_k·x.
    """
    tasks = [small.Task(name, "regression", name, 2) for name in ("a", "b")]
    whole = made("mmoe", tasks, {"arch": "mlp", "units": [3], "activation": "tanh"}, experts=2)
    rate, n = 0.1, 8
    columns = {task.name: stored(task, n) for task in tasks}
    x, y = batches.batch({"d": batch_source(whole, columns, n)}, 0)
    one = compiled(whole, loss_spec_of(tasks), rate=rate)
    one.step((x, y))
    w = {layer: [array.astype(np.float64) for array in arrays] for layer, arrays in whole.weights.items()}
    rows = x["d"].astype(np.float64)
    experts = [np.tanh(rows @ w[f"expert{i}-dense1"][0] + w[f"expert{i}-dense1"][1]) for i in (1, 2)]
    into = [np.zeros_like(expert) for expert in experts]
    wanted = {}
    for task in ("a", "b"):
        g = naive.softmax(rows @ w[f"{task}-gate"][0])
        f = g[:, :1] * experts[0] + g[:, 1:] * experts[1]
        kernel, bias = w[f"{task}_logits"]
        s = 2 * (f @ kernel + bias - y[task]) / (2 * n) @ kernel.T
        into = [before + g[:, [i]] * s for i, before in enumerate(into)]
        products = np.stack([(expert * s).sum(axis=1) for expert in experts], axis=1)
        wanted[f"{task}-gate"] = rows.T @ (g * (products - (g * products).sum(axis=1, keepdims=True)))
    for i, (expert, slope) in enumerate(zip(experts, into, strict=True), 1):
        wanted[f"expert{i}-dense1"] = rows.T @ (slope * (1 - expert**2))
    after = one.keras_layers.read()
    for layer, gradient in wanted.items():
        assert np.abs(gradient).max() > 1e-3
        assert (whole.weights[layer][0] - after[layer][0]) / rate == pytest.approx(gradient, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_what_is_one_task_s_own_is_left_alone_by_the_others() -> None:
    """A step on labels of one task moves its experts, its gate and what is shared, and nothing else."""
    own = {"cgc": ["expert1", "gate"], "ple": ["expert1", "gate", "level2"]}
    for name in own:
        whole = made(name, [DIGIT, ODD])
        columns = {"digit": stored(DIGIT, 8), "odd": np.full(8, -1, np.int32)}
        one = compiled(whole, loss_spec_of([DIGIT, ODD]))
        one.step(batches.batch({"d": batch_source(whole, columns, 8)}, 0))
        moved = {
            layer
            for layer, arrays in one.keras_layers.read().items()
            if not same({"": arrays}, {"": whole.weights[layer]})
        }
        reached = {
            node.name for node in whole.graph.nodes if node.parameters and "digit" in whole.graph._readers[node.name]
        }
        assert moved == reached | {"digit_logits"}
        still = {layer for layer in whole.weights if layer.startswith("odd")} - moved
        assert {"odd-gate", "odd_logits"} <= still
        # In ple the first level's experts feed the shared gate, so that every task trains them.
        assert ("odd-expert1-dense1" in still) == (name == "cgc")


@pytest.mark.parametrize(
    ("name", "more", "shared", "last"),
    [
        ("hard_sharing", {}, {"dense1", "dense2"}, ["dense2"]),
        (
            "mmoe",
            {"experts": 2},
            {"expert1-dense1", "expert1-dense2", "expert2-dense1", "expert2-dense2"},
            ["expert1-dense2", "expert2-dense2"],
        ),
        ("cgc", {}, {"expert1-dense1", "expert1-dense2"}, ["expert1-dense2"]),
        ("cgc", {"experts": 0}, set(), []),
        (
            "ple",
            {},
            {"expert1-dense1", "digit-expert1-dense1", "odd-expert1-dense1", "shared-by-all-gate", "expert1-dense2"},
            ["expert1-dense2"],
        ),
        (
            "cross_stitch",
            {},
            {"digit-dense1", "odd-dense1", "stitch1-digit", "stitch1-odd", "digit-dense2", "odd-dense2"},
            ["digit-dense2", "odd-dense2"],
        ),
    ],
)
def test_shared_is_what_two_tasks_depend_on(name: str, more: dict[str, Any], shared: set[str], last: list[str]) -> None:
    whole = made(name, [DIGIT, ODD], **more)
    assert {layer for layer in whole.trunk if layer in whole.weights} == shared
    assert whole.graph.last == last


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_compared_on_what_is_shared(name: str) -> None:
    """The Gramian is that of each task's own SGD step, and a step of pcgrad gives gates, own experts and heads their plain gradients."""
    rate = 1e-2
    whole = made(name)
    columns = {task.name: stored(task, 8) for task in TASKS}
    batch = batches.batch({"d": batch_source(whole, columns, 8)}, 0)
    moves: list[Weights] = []
    one = compiled(whole, loss_spec_of(TASKS), rate=rate)
    for task in TASKS:
        others = {
            f"{other.name}/labelled": np.zeros(8, np.float32)
            for other in TASKS
            if other is not task and other is not SIZE
        }
        others |= {"size/labelled": np.zeros((8, 2), np.float32)} if task is not SIZE else {}
        one.keras_layers.load(whole.weights)
        one.begin()
        one.step((batch[0], {**batch[1], **others}))
        moves.append(
            {
                layer: [before - after for before, after in zip(whole.weights[layer], arrays, strict=True)]
                for layer, arrays in one.keras_layers.read().items()
            }
        )
    one = compiled(whole, loss_spec_of(TASKS, "pcgrad"), rate=rate)
    shared = [layer for layer in whole.trunk if layer in whole.weights]
    flat = [np.concatenate([array.ravel() for layer in shared for array in move[layer]]) / rate for move in moves]
    gram = one.gram(batch)
    assert gram == pytest.approx(np.array(flat) @ np.array(flat).T, rel=5e-3, abs=2e-3)
    logs = one.step(batch)
    for layer, arrays in one.keras_layers.read().items():
        weights = [logs[f"{task.name}_weight"] if layer in shared else 1.0 for task in TASKS]
        for place, array in enumerate(arrays):
            wanted = sum(weight * move[layer][place] for weight, move in zip(weights, moves, strict=True))
            assert whole.weights[layer][place] - array == pytest.approx(wanted, rel=1e-3, abs=1e-5), layer


def test_nothing_shared_is_nothing_to_compare() -> None:
    whole = made("cgc", experts=0)
    columns = {task.name: stored(task, 8) for task in TASKS}
    assert compiled(whole, loss_spec_of(TASKS)).gram(batches.batch({"d": batch_source(whole, columns, 8)}, 0)) is None


@pytest.mark.slow
def test_a_batch_of_another_data_set_passes_only_through_what_its_tasks_need() -> None:
    """BatchNorm of a task's own expert has seen the rows of that task's data set alone."""
    whole = made("cgc", [DIGIT, ODD], RANDOM)
    loss_spec = LossSpec({"one": ["digit"], "two": ["odd"]}, {"digit": DIGIT, "odd": ODD})
    batch_sources = {
        "one": batch_source(whole, {"digit": stored(DIGIT, 8)}, 8),
        "two": batch_source(whole, {"odd": stored(ODD, 8)}, 8, seed=5),
    }
    means = []
    for far in (0.0, 100.0):
        one = compiled(whole, loss_spec)
        one.keras_layers.reseed(0)
        x, y = batches.batch(batch_sources, 0)
        one.step(({**x, "two": x["two"] + np.float32(far)}, y))
        read = one.keras_layers.read()
        means.append([read[f"{prefix}-norm1"][2] for prefix in ("digit-expert1", "odd-expert1", "expert1")])
    assert np.array_equal(means[0][0], means[1][0])
    assert not np.array_equal(means[0][1], means[1][1])
    assert not np.array_equal(means[0][2], means[1][2])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_kept_model_is_of_stock_layers_and_is_read_again_whatever_the_order_of_its_tasks(
    name: str, tmp_path: Path
) -> None:
    whole = disturbed(network(TASKS, 0, PICTURE_TRUNK, PICTURE, HeadSpec(units=3), words(name)))
    path = tmp_path / "model.keras"
    sha = export.write(whole, path)
    raw = (255 * inputs(whole)).astype(np.uint8)
    expected = outputs(whole, whole.scaling(raw))
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    told = export.manifest(whole, "model", sha, file="model.keras", rows_file=None, dataset={}, training={})
    data = json.loads(told.model_dump_json())
    data["tasks"] = dict(reversed(data["tasks"].items()))
    read = export.read(path, Manifest.model_validate(data))
    assert read.sharing == whole.sharing
    assert same(read.weights, whole.weights)
    again = outputs(read, read.scaling(raw))
    answers = model.predict_on_batch(raw.astype(np.float32))
    layers = {task.name: model.get_layer(f"{task.name}_logits").output for task in whole.tasks.values()}
    logits = keras.Model(model.input, layers)(raw.astype(np.float32), training=False)
    for task in whole.tasks.values():
        assert again[task.name] == pytest.approx(expected[task.name], rel=1e-5, abs=1e-5)
        assert np.asarray(logits[task.name]) == pytest.approx(expected[task.name], rel=1e-4, abs=1e-4)
        assert np.asarray(answers[task.name]).shape == (5, task.units)


def test_a_manifest_from_before_there_were_sharings_is_of_hard_sharing(tmp_path: Path) -> None:
    whole = made("hard_sharing")
    sha = export.write(whole, tmp_path / "m.keras")
    told = export.manifest(whole, "model", sha, file="m.keras", rows_file=None, dataset={}, training={})
    old = Manifest.model_validate({key: value for key, value in told.model_dump().items() if key != "sharing"})
    assert same(export.read(tmp_path / "m.keras", old).weights, whole.weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmoe", "ple", "cross_stitch"])
def test_other_formats_answer_as_keras_does(name: str, tmp_path: Path) -> None:
    from tests.worker.training.kept.installed import INSTALLED

    whole = disturbed(network(TASKS, 0, PICTURE_TRUNK, PICTURE, HeadSpec(units=3), words(name)))
    told = formats.write(whole, INSTALLED, (255 * inputs(whole, 6)).astype(np.uint8), tmp_path)  # type: ignore[arg-type]
    assert set(told) == set(INSTALLED)
    assert all(one["largest_difference"] <= formats.TOLERANCE for one in told.values())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["mmoe", "ple", "cross_stitch"])
def test_a_stopped_fit_goes_on_bit_by_bit(name: str, tmp_path: Path) -> None:
    """With two data sets, dropout and BatchNorm in every expert, and gradnorm's state."""
    whole = made(name, [DIGIT, ODD], RANDOM)
    loss_spec = LossSpec(
        {"one": ["digit"], "two": ["odd"]},
        {"digit": DIGIT, "odd": ODD},
        weighting=modules("weighting")["gradnorm"].Spec(),
    )
    batch_sources = {
        "one": batch_source(whole, {"digit": stored(DIGIT, 18)}, 6),
        "two": batch_source(whole, {"odd": stored(ODD, 12)}, 6, seed=5),
    }
    fit_spec, phases = FitSpec(loss_spec, batch_sources), [Phase(8, 1e-2)]
    once = small.fit(tmp_path / "once", whole, fit_spec, phases, seed=3)
    again = small.stopped_and_continued(tmp_path / "again", whole, fit_spec, phases, [2, 5], seed=3)
    assert same(once.weights, again.weights)
    assert once.sharing == whole.sharing


@pytest.mark.slow
def test_the_order_of_tasks_changes_nothing() -> None:
    for name in NAMES:
        one, other = made(name, TASKS), made(name, TASKS[::-1])
        assert same(one.weights, other.weights)
        assert one.graph.nodes == other.graph.nodes


def test_half_precision_leaves_the_gates_whole() -> None:
    whole = replace(made("mmoe"), precision="mixed_bfloat16")
    keras_layers = build.keras_layers(whole)
    assert keras_layers.layers["digit-gate"].compute_dtype == "float32"
    assert keras_layers.layers["digit-mix"].compute_dtype == "bfloat16"
    full = outputs(replace(whole, precision="float32"), inputs(whole))
    for task, found in outputs(whole, inputs(whole)).items():
        assert found.astype(np.float32) == pytest.approx(full[task], rel=0.1, abs=0.1)
