"""Low-rank adapters: nothing before the first step, the base untouched after it, merged in what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from app.spec.training import OptimizerSpec
from tests.worker.training import small
from tests.worker.training.small import DIGIT, PICTURE, batch_source, network, same, stored
from worker.training.data import batches
from worker.training.fitting import learner
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.kept import export
from worker.training.networks import build
from worker.training.networks.network import Lora, Network

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

ARCH = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.3}
TARGETS = ("conv1", "conv2", "dense1")
R, ALPHA = 2, 6.0


def loss_spec() -> LossSpec:
    return LossSpec({"d": ["digit"]}, {"digit": DIGIT})


def plain() -> Network:
    return network([DIGIT], architecture=ARCH, shape=PICTURE)


def adapted(whole: Network, targets: tuple[str, ...] = TARGETS) -> Network:
    return replace(whole, lora=Lora(R, ALPHA, targets))


def frozen(whole: Network) -> frozenset[str]:
    assert whole.lora is not None
    return frozenset(name for name in whole.trunk if name not in whole.lora.targets)


def begun(whole: Network, seed: int = 0) -> Compiled:
    keras_layers = build.keras_layers(whole)
    words = OptimizerSpec(name="adam")
    made = Compiled(keras_layers, loss_spec(), lambda: learner.optimizer(words, 1e-2), frozen(whole), True)
    keras_layers.reseed(seed)
    made.begin()
    return made


def inputs(whole: Network, n: int = 8) -> np.ndarray:
    return whole.scaling(np.random.default_rng(1).integers(0, 256, (n, *whole.input.shape)).astype(np.uint8))


def train(made: Compiled, whole: Network, steps: int = 5) -> None:
    data = {"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)}
    for number in range(steps):
        made.step(batches.batch(data, number))


def test_before_the_first_step_all_is_exactly_as_it_was() -> None:
    whole = adapted(plain())
    made = begun(whole)
    x = inputs(whole)
    before = build.keras_layers(plain()).forward.predict_on_batch(x)["digit"]
    assert np.array_equal(made.keras_layers.forward.predict_on_batch(x)["digit"], before)
    assert same(made.keras_layers.read(), whole.weights)
    assert all(keras.ops.any(made.keras_layers.layers[name].lora_kernel_a != 0) for name in TARGETS)


def test_an_adapter_begins_as_peft_s() -> None:
    """A uniform within ±1/√fan_in (Kaiming-uniform with a = √5), B zero."""
    made = begun(adapted(plain()))
    made.keras_layers.reseed(3)
    for name in TARGETS:
        layer = made.keras_layers.layers[name]
        a, b = np.array(layer.lora_kernel_a.value), np.array(layer.lora_kernel_b.value)
        limit = np.prod(a.shape[:-1]) ** -0.5
        assert 0.8 * limit < np.abs(a).max() <= limit
        assert abs(a.std() / (limit / 3**0.5) - 1) < 0.25
        assert not b.any()


def test_only_adapters_and_the_head_learn() -> None:
    whole = adapted(plain())
    made = begun(whole)
    before = {variable.path: np.array(variable.value) for variable in made.keras_layers.forward.variables}
    train(made, whole)
    changed = {
        variable.path
        for variable in made.keras_layers.forward.variables
        if "seed" not in variable.path and not np.array_equal(np.array(variable.value), before[variable.path])
    }
    adapters = {f"{name}/lora_kernel_{letter}" for name in TARGETS for letter in "ab"}
    assert changed == adapters | {"digit_logits/kernel", "digit_logits/bias"}
    count = sum(int(np.prod(variable.shape)) for variable in made.learner.trainable_variables)
    fans = {"conv1": (9, 3), "conv2": (27, 4), "dense1": (9 * 4, 6)}
    assert count == sum(R * (d_in + d_out) for d_in, d_out in fans.values()) + 6 * 4 + 4


def test_merged_equals_unmerged_and_the_difference_has_the_rank_and_scale() -> None:
    whole = adapted(plain())
    made = begun(whole)
    train(made, whole)
    merged = replace(whole, weights=made.keras_layers.read(), lora=None)
    x = inputs(whole)
    unmerged = made.keras_layers.forward.predict_on_batch(x)["digit"]
    assert np.allclose(build.keras_layers(merged).forward.predict_on_batch(x)["digit"], unmerged, atol=1e-5)
    for name in TARGETS:
        layer = made.keras_layers.layers[name]
        difference = (merged.weights[name][0] - whole.weights[name][0]).reshape(-1, whole.weights[name][0].shape[-1])
        assert 1 <= np.linalg.matrix_rank(difference, tol=1e-5) <= R
        a, b = np.array(layer.lora_kernel_a.value), np.array(layer.lora_kernel_b.value)
        assert np.allclose(difference, ALPHA / R * (a.reshape(-1, R) @ b), atol=1e-6)
    for name in set(merged.weights) - {*TARGETS, "digit_logits"}:
        assert same({name: merged.weights[name]}, {name: whole.weights[name]}), name


def attention() -> Network:
    vit = {"arch": "vit-tiny", "patch": 4, "dim": 8, "depth": 1, "heads": 2}
    return network([DIGIT], architecture=vit, shape=PICTURE)


def test_attention_s_adapters_are_those_of_one_matrix_over_all_heads() -> None:
    """Queries, keys, values: A (d, r) and B (r, heads·size), as PEFT has them. The output's kernel (heads, size, d) likewise."""
    made = begun(adapted(attention(), ("encoder1-attention",)))
    layer = made.keras_layers.layers["encoder1-attention"]
    for part in (layer._query_dense, layer._key_dense, layer._value_dense):
        assert (tuple(part.lora_kernel_a.shape), tuple(part.lora_kernel_b.shape)) == ((8, R), (R, 2, 4))
        assert np.abs(part.lora_kernel_a.value).max() <= 8**-0.5
    assert tuple(layer._output_dense.lora_kernel_a.shape) == (2, 4, R)
    count = sum(int(np.prod(variable.shape)) for variable in made.learner.trainable_variables)
    assert count == 4 * R * (8 + 8) + 8 * 4 + 4


def test_the_first_step_of_attention_s_adapters_is_that_of_the_chain_rule() -> None:
    """∂L/∂A = α/r · G·Bᵀ and ∂L/∂B = α/r · Aᵀ·G, where G = ∂L/∂W of the same network without adapters, their product in its kernels."""
    whole, name = adapted(attention(), ("encoder1-attention",)), "encoder1-attention"
    data = batches.batch({"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)}, 0)

    def descending(network: Network, frozen: frozenset[str]) -> Compiled:
        words = OptimizerSpec(name="sgd", momentum=0.0)
        keras_layers = build.keras_layers(network)
        made = Compiled(keras_layers, loss_spec(), lambda: learner.optimizer(words, 1.0), frozen, True)
        keras_layers.reseed(0)
        made.begin()
        return made

    made = descending(whole, frozen(whole))
    parts = build.adapters.within(made.keras_layers.layers[name])
    rng = np.random.default_rng(2)
    for part in parts:
        part.lora_kernel_b.assign(rng.normal(size=tuple(part.lora_kernel_b.shape)) / 8)
    before = [(np.array(part.lora_kernel_a.value), np.array(part.lora_kernel_b.value)) for part in parts]
    merged = replace(whole, weights=made.keras_layers.read(), lora=None)
    plain = descending(merged, frozenset(name for name in whole.trunk if name != "encoder1-attention"))
    kernels = [
        place for place, variable in enumerate(plain.keras_layers.layers[name].weights) if variable.name == "kernel"
    ]
    x = inputs(whole)
    assert np.allclose(
        plain.keras_layers.forward.predict_on_batch(x)["digit"],
        made.keras_layers.forward.predict_on_batch(x)["digit"],
        atol=1e-6,
    )
    made.step(data)
    plain.step(data)
    after = plain.keras_layers.read()[name]
    assert len(parts) == len(kernels) == 4
    for part, place, (a, b) in zip(parts, kernels, before, strict=True):
        slope = merged.weights[name][place] - after[place]  # one step of plain descent at a rate of 1
        flat_a, flat_b = a.reshape(-1, R), b.reshape(R, -1)
        flat = slope.reshape(len(flat_a), -1)
        assert np.abs(flat).max() > 1e-4
        of_a = (flat_a - np.array(part.lora_kernel_a.value).reshape(-1, R)) * R / ALPHA
        of_b = (flat_b - np.array(part.lora_kernel_b.value).reshape(R, -1)) * R / ALPHA
        assert np.allclose(of_a, flat @ flat_b.T, atol=1e-6)
        assert np.allclose(of_b, flat_a.T @ flat, atol=1e-6)


def test_the_kept_file_is_of_stock_layers_without_adapters(tmp_path: Path) -> None:
    whole = adapted(plain())
    fit_spec = FitSpec(loss_spec(), {"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)})
    kept = small.fit(tmp_path, whole, fit_spec, [Phase(6, 1e-2, frozen(whole), True)])
    assert kept.lora is None
    assert kept.parameters == plain().parameters
    export.write(kept, tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert not any(getattr(layer, "lora_enabled", False) for layer in model.layers)
    assert not [variable.path for variable in model.variables if "lora" in variable.path]
    raw = np.random.default_rng(1).integers(0, 256, (8, *whole.input.shape)).astype(np.float32)
    logits = build.keras_layers(kept).forward.predict_on_batch(kept.scaling(raw))["digit"]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(model.predict_on_batch(raw)["digit"], expected, atol=1e-5)


@pytest.mark.long
def test_a_fit_with_adapters_that_was_stopped_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    whole = adapted(plain(), ("conv2", "dense1"))
    fit_spec = FitSpec(loss_spec(), {"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)})
    phases = [Phase(10, 1e-2, frozen(whole), True)]
    straight = small.fit(tmp_path / "a", whole, fit_spec, phases, seed=3)
    assert same(
        small.stopped_and_continued(tmp_path / "b", whole, fit_spec, phases, (4, 7), seed=3).weights, straight.weights
    )
    assert not same({"c": straight.weights["conv2"]}, {"c": whole.weights["conv2"]})
    assert same({"c": straight.weights["conv1"]}, {"c": whole.weights["conv1"]})
    other = small.fit(tmp_path / "c", whole, fit_spec, phases, seed=4)
    assert not same(other.weights, straight.weights)  # each seed draws its own adapters


def test_adapters_that_were_trained_begin_anew_with_the_next_fit(tmp_path: Path) -> None:
    whole = adapted(plain())
    fit_spec = FitSpec(loss_spec(), {"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)})
    from app.spec.training import TrainingSpec

    reused, ends = small.fit_loop(tmp_path), []
    for number in range(2):
        reused.model_cache.keras_layers(whole)
        trained = reused.fit(
            f"treated/{number}", whole, fit_spec, [Phase(5, 1e-2, frozen(whole), True)], TrainingSpec(), 0
        )
        ends.append(trained.network.weights)
    assert same(*ends)
