from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.worker.training.weighting.weighed import ALL, built, in_use, total
from worker.training.weighting import TaskWeighting, dwa, equal, famo, fixed, gls, imtl_l, rlw, stch, uncertainty

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

MODULES = [equal, fixed, uncertainty, rlw, dwa, gls, imtl_l, stch, famo]


# --- each one on fixture L: losses (1, 4)


def test_equal_is_the_sum() -> None:
    found, slope, _ = total(built(equal), [1.0, 4.0], ALL)
    assert found == 5
    assert slope.tolist() == [1, 1]


def test_fixed_multiplies_by_the_tasks_weights() -> None:
    found, slope, _ = total(built(fixed, (2.0, 0.5)), [1.0, 4.0], ALL)
    assert found == 4
    assert slope.tolist() == [2, 0.5]


def test_only_fixed_has_task_weights() -> None:
    assert [module.Weighting.uses_task_weights for module in MODULES] == [module is fixed for module in MODULES]


def test_uncertainty_starts_at_the_log_of_the_first_losses_where_it_is_stationary() -> None:
    weighting = built(uncertainty, first={"a": 1.0, "b": 4.0})
    assert np.asarray(weighting.s) == pytest.approx([0.0, 1.386294], abs=1e-6)
    found, slope, (own,) = total(weighting, [1.0, 4.0], ALL)
    assert found == pytest.approx(0.5 * (1 + math.log(1)) + 0.5 * (1 + math.log(4)), abs=1e-5)
    assert slope == pytest.approx([0.5, 0.125], abs=1e-6)
    assert own == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("s", [[0.0, 0.0], [-1.0, 2.0], [0.3, -0.7]])
def test_uncertainty_has_the_hand_derived_gradients(s: list[float]) -> None:
    weighting = built(uncertainty)
    weighting.s.assign(s)
    losses, s_ = np.array([1.0, 4.0]), np.array(s)
    found, slope, (own,) = total(weighting, losses.tolist(), ALL)
    assert found == pytest.approx(np.sum(0.5 * np.exp(-s_) * losses + 0.5 * s_), abs=1e-5)
    assert slope == pytest.approx(0.5 * np.exp(-s_), abs=1e-5)
    assert own == pytest.approx(0.5 - 0.5 * np.exp(-s_) * losses, abs=1e-5)


def test_uncertainty_may_be_negative_and_its_weights_do_not_add_up_to_the_number_of_tasks() -> None:
    weighting = built(uncertainty, first={"a": 0.01, "b": 0.01})
    found, slope, _ = total(weighting, [0.01, 0.01], ALL)
    assert found < 0
    assert slope.sum() == pytest.approx(100)


def test_uncertainty_goes_to_the_log_of_a_constant_loss_by_gradient_steps() -> None:
    weighting = built(uncertainty)
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(60):
        _, _, (own,) = total(weighting, [0.5, 3.0], ALL)
        optimizer.apply([tf.constant(own)], [weighting.s])
    assert np.asarray(weighting.s) == pytest.approx([math.log(0.5), math.log(3)], abs=1e-4)


def test_uncertainty_wants_a_first_loss_of_every_task_and_survives_a_loss_of_0() -> None:
    with pytest.raises(ValueError, match="none for b"):
        built(uncertainty, first={"a": 1.0})
    with pytest.raises(ValueError, match="none for b"):
        built(uncertainty, first={"a": 1.0, "b": math.nan})
    assert np.isfinite(np.asarray(built(uncertainty, first={"a": 0.0, "b": 1.0}).s)).all()


def test_uncertaintys_state_is_trained_with_the_learner() -> None:
    weighting = built(uncertainty)
    assert weighting.built
    assert [variable.path for variable in weighting.learner.trainable_variables] == [weighting.s.path]
    assert built(equal).learner.trainable_variables == []


# --- what holds for every one


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("nothing", [0.0, math.nan])
def test_a_task_without_labels_is_left_out(module: ModuleType, nothing: float) -> None:
    """As if it did not exist: the total, every gradient, and no nan from the 0/0 of its loss."""
    several, alone = built(module, (2.0, 0.5, 3.0)), built(module, (2.0, 3.0))
    found, slope, own = total(several, [1.0, nothing, 4.0], [True, False, True])
    expected, expected_slope, expected_own = total(alone, [1.0, 4.0], ALL)
    assert found == pytest.approx(expected)
    assert slope[[0, 2]] == pytest.approx(expected_slope)
    assert slope[1] == 0
    for g, e in zip(own, expected_own, strict=True):
        assert g[[0, 2]] == pytest.approx(e)
        assert g[1] == 0


@pytest.mark.parametrize("module", MODULES)
def test_a_batch_without_any_label_adds_nothing(module: ModuleType) -> None:
    found, slope, _ = total(built(module), [math.nan, math.nan], [False, False])
    assert found == 0
    assert slope.tolist() == [0, 0]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("present", [ALL, [True, False]])
def test_the_weights_in_use_are_the_gradient_of_the_total(module: ModuleType, present: list[bool]) -> None:
    weighting = built(module, (2.0, 0.5), {"a": 1.5, "b": 0.2})
    _, slope, _ = total(weighting, [1.0, 4.0], present)
    assert in_use(weighting, [1.0, 4.0], present) == pytest.approx(slope)
    named = weighting.weights_in_use(
        {"a": tf.constant(1.0), "b": tf.constant(4.0)}, {k: tf.constant(p) for k, p in zip("ab", present, strict=True)}
    )
    assert [float(named["a"]), float(named["b"])] == pytest.approx(slope)


@pytest.mark.parametrize("module", MODULES)
def test_losses_by_name_may_come_in_any_order(module: ModuleType) -> None:
    weighting = built(module, (2.0, 0.5))
    there = {name: tf.constant(True) for name in "ab"}
    found = float(weighting({"b": tf.constant(4.0), "a": tf.constant(1.0)}, there))
    assert found == pytest.approx(total(weighting, [1.0, 4.0], ALL)[0])


@pytest.mark.parametrize("module", MODULES)
def test_one_task_alone_gets_its_plain_gradient_but_for_those_on_logs(module: ModuleType) -> None:
    weighting = built(module, (1.0,), {"a": 4.0})
    _, slope, _ = total(weighting, [4.0], [True])
    on_logs = {uncertainty: 0.125, stch: 0.25}  # imtl_l comes to e^s = 1/L later; it begins at 1
    assert slope == pytest.approx([on_logs.get(module, 1.0)])


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("present", [ALL, [True, False], [False, False]])
def test_the_parts_of_the_tasks_add_up_to_the_total(module: ModuleType, present: list[bool]) -> None:
    weighting = built(module, (2.0, 0.5), {"a": 1.5, "b": 0.2})
    losses = [1.0, 4.0 if present[1] else math.nan]
    found, _, _ = total(weighting, losses, present)
    parts = np.asarray(weighting.parts(tf.constant(losses), tf.constant(present)))
    assert parts.sum() == pytest.approx(found, abs=1e-6)
    assert not parts[~np.array(present)].any()


def test_a_task_left_out_keeps_its_state_though_adam_has_momentum() -> None:
    weighting = built(uncertainty, first={"a": 1.0, "b": 1.0})
    optimizer = keras.optimizers.Adam(0.1)

    def step(present: list[bool]) -> None:
        _, _, (own,) = total(weighting, [3.0, 3.0], present)
        optimizer.apply([tf.constant(own)], [weighting.s])

    step(ALL)
    before = np.asarray(weighting.s).copy()
    with weighting.hold(["b"]):
        step([True, False])
    after = np.asarray(weighting.s)
    assert after[1] == before[1]
    assert after[0] != before[0]
    step([True, False])  # without `hold` momentum moves it
    assert np.asarray(weighting.s)[1] != before[1]


def test_nothing_is_held_where_no_task_is_absent() -> None:
    weighting = built(uncertainty)
    with weighting.hold([]):
        weighting.s.assign([1.0, 2.0])
    assert np.asarray(weighting.s).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_the_face_and_a_valid_example(module: ModuleType) -> None:
    assert issubclass(module.Weighting, TaskWeighting)
    assert module.Weighting.level == "loss"
    words = module.Spec.model_validate(module.EXAMPLE)
    assert words.name == module.__name__.rsplit(".", 1)[1]
    with pytest.raises(ValidationError):
        module.Spec.model_validate({**module.EXAMPLE, "nonsense": 2})


def test_it_runs_inside_a_compiled_step() -> None:
    """In a graph, with an optimizer, on a batch in which one task has no label."""

    class Learner(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.w = self.add_weight(shape=(2,), initializer="ones", name="w")
            self.weighting = uncertainty.Weighting(uncertainty.Spec(), {"a": 1.0, "b": 1.0})
            self.weighting.build(self)

        def call(self, x: Any) -> Any:
            return x * self.w

        def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
            count = keras.ops.sum(y, axis=0)
            losses = keras.ops.sum(keras.ops.square(y_pred) * y, axis=0) / keras.ops.maximum(count, 1)
            return self.weighting.combine(losses, count > 0)

    learner = Learner()
    learner.weighting.start({"a": 4.0, "b": 9.0})
    learner.compile(optimizer=keras.optimizers.SGD(0.1))
    x, labelled = np.array([[2.0, 3.0]], "float32"), np.array([[1.0, 0.0]], "float32")
    learner.train_on_batch(x, labelled)
    # ∂/∂w_a = ½·e^(−log 4)·2·4·w = 1; task b is left out
    assert np.asarray(learner.w) == pytest.approx([1 - 0.1 * 1.0, 1.0], abs=1e-6)
    assert np.asarray(learner.weighting.s) == pytest.approx(np.log([4.0, 9.0]), abs=1e-6)
