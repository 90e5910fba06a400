"""Whole jobs that treat the layers of a residual network apart: adapters, unfreezing, rates by depth, taps, stitches, copies by name."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.spec import architectures
from tests.worker.training import small
from tests.worker.training.methods.planning import changed, planned
from tests.worker.training.methods.resolving import resolve
from tests.worker.training.small import DIGIT, Quiet, batch_source, network, same, stored
from worker.reports import Exit
from worker.training import trainer
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec
from worker.training.methods.transfer.spec import copyable
from worker.training.networks import build, opened, trunk
from worker.training.networks.inheritance import inherit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TINY: dict[str, Any] = {"arch": "applications", "name": "MobileNetV2", "alpha": 0.35, "size": [32, 32]}
NONE = {"applications": "MobileNetV2", "alpha": 0.35, "weights": "none"}
BODY: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "digits",
    "limit_train_examples": 40,
    "source": NONE,
    "training": {"steps": 3, "batch_size": 8},
}


def run(body: dict[str, Any], out: Path) -> dict[str, Any]:
    told = Quiet()
    code = trainer.run(trainer.resolved_alone(body), out, told, threading.Event())
    assert code == Exit.DONE, told.reports[-1]
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def kept(out: Path) -> dict[str, list[np.ndarray]]:
    model = keras.saving.load_model(out / "model.keras", compile=False, safe_mode=True)
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def begun(seed: int = 0) -> dict[str, list[np.ndarray]]:
    """The numbers of the source, which are drawn from the seed."""
    from app.spec.data import InputSchema

    shape = InputSchema(kind="image", shape=[32, 32, 3], scale=255.0)
    return network([DIGIT], seed, TINY, shape).weights


def test_a_job_with_adapters_on_mobilenet_keeps_their_low_rank_sum(tmp_path: Path) -> None:
    report = run({**BODY, "strategy": "lora", "lora": {"r": 2, "lora_alpha": 4.0}}, tmp_path)
    assert report["lora"] == {"r": 2, "lora_alpha": 4.0, "target_modules": "all"}
    before, after = begun(), kept(tmp_path)
    trace = trunk.trace(architectures.resolve(TINY), (32, 32, 3))
    moved = 0
    for layer in trace.layers:
        if not layer.parameters:
            continue
        if not layer.adaptable:
            assert same({"l": after[layer.name]}, {"l": before[layer.name]}), layer.name
            continue
        assert same({"l": after[layer.name][1:]}, {"l": before[layer.name][1:]}), layer.name
        difference = (after[layer.name][0] - before[layer.name][0]).astype(np.float64)
        rows = difference.reshape(-1, difference.shape[-1])
        singular = np.linalg.svd(rows, compute_uv=False)
        assert singular[2:].max(initial=0) <= 1e-6
        moved += singular[0] > 1e-5
    assert moved == 35


def test_gradual_unfreezing_of_mobilenet_lets_group_after_group_learn_from_the_top(tmp_path: Path) -> None:
    """Howard and Ruder 2018, section 3.3: the last layer first, then one group more at a time, down to the first."""
    spec = resolve({**BODY, "strategy": "gradual_unfreezing", "training": {"epochs": 33}})
    whole = network([DIGIT], 0, TINY, small.PICTURE.model_copy(update={"shape": [32, 32, 3]}))
    phases = planned(spec, whole, 33, 1)
    assert [phase.steps for phase in phases] == [1] * 33
    groups = whole.trace.groups
    learning = [set(whole.trunk) - phase.frozen for phase in phases]
    assert learning[0] == set()
    for number, (less, more) in enumerate(pairwise(learning), 1):
        assert more - less == set(groups[-number])
    rows = {"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)}
    fit_spec = FitSpec(LossSpec({"d": ["digit"]}, whole.tasks), rows)
    norms = {layer.name for layer in whole.trace.layers if layer.kind == "BatchNormalization"}
    trained = {name for name in set(groups[-1]) | set(groups[-2]) if name in whole.weights} - norms
    found = small.fit(tmp_path, whole, fit_spec, phases[:3], 0)
    assert changed(whole, found) == trained | {"digit_logits"}


def test_rates_fall_from_block_to_block() -> None:
    spec = resolve({**BODY, "learning_rates": {"decay": 2.0}, "training": {"epochs": 2, "optimizer": {"name": "sgd"}}})
    whole = network([DIGIT], 0, TINY, small.PICTURE.model_copy(update={"shape": [32, 32, 3]}))
    (phase,) = planned(spec, whole, 2, 1)
    by_layer = {pattern.removesuffix("/.+").replace("\\", ""): factor for pattern, factor in phase.factors.items()}
    for depth, group in enumerate(reversed(whole.trace.groups), 1):
        for name in group:
            layer = whole.trace.by_name[name]
            if layer.parameters and layer.kind != "BatchNormalization":
                assert by_layer[name] == pytest.approx(2.0**-depth)
    assert by_layer["digit_logits"] == 1.0


def test_layers_of_a_residual_source_are_copied_by_name_into_a_deeper_one() -> None:
    source, deeper = (network([DIGIT], seed, f"resnet-{depth}", small.PICTURE) for seed, depth in ((1, 8), (2, 14)))
    passed = inherit(deeper, source)
    assert {name for name in passed.copied if name != "digit_logits"} == {
        name for name in source.weights if name != "digit_logits"
    }
    assert all(name.split("-")[1] == "block2" for name in passed.fresh)
    assert same({n: passed.network.weights[n] for n in source.weights}, source.weights)
    assert copyable(deeper.trace, _known(source))


def _known(source: Any) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(trace=source.trace)


def test_a_wide_residual_teacher_teaches_a_small_residual_student_by_their_blocks(tmp_path: Path) -> None:
    teacher = {"dataset": "digits", "architecture": {"arch": "wrn", "depth": 10, "widen": 1}, "training": {"steps": 2}}
    report = run(
        {
            "kind": "distillation",
            "dataset": "digits",
            "limit_train_examples": 40,
            "teacher": {"train": {**teacher, "limit_train_examples": 40}},
            "student": "resnet-8",
            "objectives": [{"type": "logits"}, {"type": "attention"}, {"type": "hint"}],
            "training": {"steps": 2, "batch_size": 8},
        },
        tmp_path,
    )
    assert report["distillation"]["params_ratio"] > 0.9
    assert "stage3-block1-conv2" in kept(tmp_path)


@pytest.mark.parametrize("sharing", ["cross_stitch", "ple"])
def test_residual_trunks_are_shared_block_by_block(sharing: str, tmp_path: Path) -> None:
    report = run(
        {
            "kind": "multitask",
            "dataset": "digits",
            "limit_train_examples": 40,
            "tasks": {"digit": {}, "odd": {}},
            "trunk": "resnet-8",
            "sharing": sharing,
            "training": {"steps": 2, "batch_size": 8},
        },
        tmp_path,
    )
    assert report["sharing"]["name"] == sharing


WRN = {"arch": "wrn", "depth": 10, "widen": 1, "dropout": 0.3}
VIT = {"arch": "vit-tiny", "patch": 4, "dim": 8, "depth": 1, "heads": 2, "dropout": 0.2}


@pytest.mark.parametrize("architecture", [WRN, VIT], ids=["wrn", "vit-tiny"])
def test_a_fit_of_the_new_networks_that_was_stopped_ends_bit_for_bit_the_same(
    architecture: dict[str, Any], tmp_path: Path
) -> None:
    from worker.training.fitting.plan import Phase

    whole = network([DIGIT], 1, architecture, small.PICTURE)
    fit_spec = FitSpec(
        LossSpec({"d": ["digit"]}, whole.tasks), {"d": batch_source(whole, {"digit": stored(DIGIT, 24)}, 8)}
    )
    phases = [Phase(8, 1e-2)]
    straight = small.fit(tmp_path / "a", whole, fit_spec, phases, seed=3)
    halted = small.stopped_and_continued(tmp_path / "b", whole, fit_spec, phases, (3, 5), seed=3)
    assert same(halted.weights, straight.weights)
    assert not same(straight.weights, whole.weights)
    assert not same(small.fit(tmp_path / "c", whole, fit_spec, phases, seed=4).weights, straight.weights)


def test_adapters_of_attention_stand_beside_its_four_projections() -> None:
    from dataclasses import replace

    from worker.training.networks.network import Lora

    tiny = {"arch": "vit-tiny", "patch": 4, "dim": 8, "depth": 1, "heads": 2}
    whole = network([DIGIT], 1, tiny, small.PICTURE)
    targets = tuple(layer.name for layer in whole.trace.layers if layer.adaptable)
    assert targets == ("patch-embedding", "encoder1-attention", "encoder1-dense1", "encoder1-dense2")
    keras_layers = build.keras_layers(replace(whole, lora=Lora(2, 4.0, targets)))
    keras_layers.reseed(0)
    parts = [
        part for part in opened.inner(keras_layers.layers["encoder1-attention"]) if getattr(part, "lora_enabled", False)
    ]
    assert [part.name for part in parts] == ["query", "key", "value", "attention_output"]
    rng = np.random.default_rng(0)
    for name in targets:
        for part in opened.adaptable(keras_layers.layers[name]):
            part.lora_kernel_b.assign(rng.standard_normal(part.lora_kernel_b.shape).astype(np.float32))
    keras_layers.freeze([], False)
    learnt = {
        variable.path.rsplit("/", 1)[-1]
        for name in targets
        for variable in keras_layers.layers[name].trainable_variables
    }
    assert learnt == {"lora_kernel_a", "lora_kernel_b"}
    x = rng.uniform(0, 1, (3, 12, 12, 1)).astype(np.float32)
    unmerged = keras_layers.forward.predict_on_batch(x)["digit"]
    merged = replace(whole, weights=keras_layers.read())
    assert np.allclose(build.keras_layers(merged).forward.predict_on_batch(x)["digit"], unmerged, atol=1e-4)
    assert not np.allclose(build.keras_layers(whole).forward.predict_on_batch(x)["digit"], unmerged, atol=1e-2)
    query = parts[0]
    a, b = (np.array(one.value, np.float64) for one in (query.lora_kernel_a, query.lora_kernel_b))
    expected = whole.weights["encoder1-attention"][0] + 4.0 / 2 * np.einsum("dr,rhk->dhk", a, b)
    assert np.allclose(merged.weights["encoder1-attention"][0], expected, atol=1e-5)
