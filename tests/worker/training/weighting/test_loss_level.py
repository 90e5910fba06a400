"""The weightings of level "loss": each against numbers derived by hand, on fixture L (losses 1 and 4), and in its limits."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.worker.training.weighting.weighed import ALL, built, in_use, total
from worker.training.weighting import dwa, equal, famo, gls, imtl_l, numbers, rlw, stch, uncertainty

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

L = [1.0, 4.0]


def with_words(module: ModuleType, tasks: str = "ab", **words: Any) -> Any:
    weighting = module.Weighting(module.Spec(**words), dict.fromkeys(tasks, 1.0))
    weighting.build(keras.Model())
    return weighting


# --- imtl_l


def test_imtl_l_begins_as_equal() -> None:
    found, slope, (own,) = total(built(imtl_l), L, ALL)
    assert found == total(built(equal), L, ALL)[0] == 5
    assert slope.tolist() == [1, 1]
    assert own == pytest.approx([1 - 1, 4 - 1])


def test_imtl_l_is_stationary_at_minus_log_l_where_it_is_1_plus_log_l() -> None:
    weighting = built(imtl_l)
    weighting.s.assign([-math.log(1.0), -math.log(4.0)])
    found, slope, (own,) = total(weighting, L, ALL)
    assert found == pytest.approx((1 + math.log(1)) + (1 + math.log(4)), abs=1e-5)
    assert slope == pytest.approx([1, 0.25])
    assert own == pytest.approx([0, 0], abs=1e-6)


# --- gls


def test_gls_is_the_geometric_mean() -> None:
    found, slope, _ = total(built(gls), L, ALL)
    assert found == pytest.approx(2)
    assert slope == pytest.approx([1, 0.25])


def test_gls_survives_a_loss_of_0() -> None:
    found, slope, _ = total(built(gls), [0.0, 4.0], ALL)
    assert np.isfinite([found, *slope]).all()
    assert in_use(built(gls), [0.0, 4.0], ALL) == pytest.approx(slope)


# --- those that follow one direction


def test_uncertainty_gls_imtl_l_and_famo_pull_the_same_way_at_first() -> None:
    """All along Σ ∇L/L, cosine 1: uncertainty at log L, imtl_l at −log L."""
    losses, gradients = np.array([0.3, 4.0, 25.0]), np.random.default_rng(0).standard_normal((3, 7))
    along = (gradients / losses[:, None]).sum(axis=0)
    first = dict(zip("abc", losses.tolist(), strict=True))
    for module in (uncertainty, gls, imtl_l, famo):
        weighting = built(module, (1.0,) * 3, first)
        if module is imtl_l:
            weighting.s.assign(-np.log(losses))
        _, slope, _ = total(weighting, losses.tolist(), [True] * 3)
        pulled = slope @ gradients
        assert pulled @ along / np.linalg.norm(pulled) / np.linalg.norm(along) == pytest.approx(1, abs=1e-6), module


# --- dwa


def test_dwa_weighs_by_the_speed_of_the_last_two_epochs() -> None:
    weighting = with_words(dwa, T=2.0)
    assert in_use(weighting, L, ALL) == pytest.approx([1, 1])
    weighting.on_epoch_end(0, {"a": 1.0, "b": 1.0})
    assert in_use(weighting, L, ALL) == pytest.approx([1, 1])
    weighting.on_epoch_end(1, {"a": 0.5, "b": 1.0})
    assert in_use(weighting, L, ALL) == pytest.approx([0.875647, 1.124353], abs=1e-6)
    found, slope, _ = total(weighting, L, ALL)
    assert found == pytest.approx(0.875647 + 4 * 1.124353, abs=1e-5)
    assert slope.sum() == pytest.approx(2)
    weighting.on_epoch_end(2, {"a": 0.5, "b": 1.0})  # both stand still
    assert in_use(weighting, L, ALL) == pytest.approx([1, 1])


def test_dwa_passes_over_an_epoch_without_labels_and_a_loss_of_0() -> None:
    weighting = with_words(dwa)
    for epoch, means in enumerate(({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 1.0})):
        weighting.on_epoch_end(epoch, means)
    before = in_use(weighting, L, ALL)
    weighting.on_epoch_end(2, {"b": 1.0})
    assert in_use(weighting, L, ALL) == pytest.approx(before)
    weighting.on_epoch_end(3, {"a": 0.0, "b": 0.0})
    weighting.on_epoch_end(4, {"a": 0.0, "b": 0.0})
    assert np.isfinite(in_use(weighting, L, ALL)).all()


def test_dwa_at_a_high_temperature_is_equal() -> None:
    weighting = with_words(dwa, T=1e6)
    for epoch, means in enumerate(({"a": 1.0, "b": 1.0}, {"a": 0.1, "b": 3.0})):
        weighting.on_epoch_end(epoch, means)
    assert in_use(weighting, L, ALL) == pytest.approx([1, 1], abs=1e-5)


# --- rlw


def test_rlw_is_k_times_a_softmax() -> None:
    weighting = with_words(rlw)
    weighting.drawn.assign([0.0, math.log(3)])
    assert in_use(weighting, L, ALL) == pytest.approx([0.5, 1.5])
    assert total(weighting, L, ALL)[0] == pytest.approx(0.5 + 6)


def test_rlw_draws_anew_each_step_from_seed_and_step_alone_and_is_1_on_average() -> None:
    weighting, drawn = with_words(rlw, "abc"), []
    for step in range(10_000):
        z = np.random.default_rng([3, step, *b"rlw"]).standard_normal(3)
        drawn.append(3 * np.exp(z) / np.exp(z).sum())
        if step % 2500 == 7:
            weighting.before_step(3, step)
            assert in_use(weighting, [1.0] * 3, [True] * 3) == pytest.approx(drawn[-1], abs=1e-6)
    assert np.mean(drawn, axis=0) == pytest.approx([1, 1, 1], abs=0.03)
    assert np.sum(drawn, axis=1) == pytest.approx(3)
    weighting.before_step(4, 0)
    assert in_use(weighting, [1.0] * 3, [True] * 3) != pytest.approx(drawn[0], abs=1e-3)


# --- stch


def warmed(mu: float, nadir: tuple[float, float]) -> Any:
    weighting = with_words(stch, mu=mu, warmup_epochs=2)
    weighting.on_epoch_end(0, {"a": 9.0, "b": 9.0})
    weighting.on_epoch_end(1, dict(zip("ab", nadir, strict=True)))
    return weighting


def test_stch_warms_up_on_the_sum_of_log_losses() -> None:
    weighting = with_words(stch, warmup_epochs=2)
    for epoch in (None, 0):
        if epoch is not None:
            weighting.on_epoch_end(epoch, {"a": 9.0, "b": 9.0})
        found, slope, _ = total(weighting, L, ALL)
        assert found == pytest.approx(math.log(1) + math.log(4))
        assert slope == pytest.approx([1, 0.25])
    weighting.on_epoch_end(1, {"a": 1.0, "b": 2.0})
    assert total(weighting, L, ALL)[0] != pytest.approx(math.log(4))
    assert stch.Spec().warmup_epochs == 4


def test_stch_on_fixture_l() -> None:
    found, slope, _ = total(warmed(1.0, (1.0, 2.0)), L, ALL)
    assert found == pytest.approx(2 * math.log(3), abs=1e-6)
    assert slope == pytest.approx([2 / 3, 1 / 3], abs=1e-6)


def test_stch_without_smoothing_is_the_worst_task_alone() -> None:
    found, slope, _ = total(warmed(1e-3, (1.0, 2.0)), L, ALL)
    assert found == pytest.approx(2 * math.log(2), abs=1e-5)
    assert slope == pytest.approx([0, 0.5], abs=1e-6)


def test_stch_keeps_the_nadir_of_the_last_warm_up_epoch() -> None:
    weighting = warmed(1.0, (1.0, 2.0))
    weighting.on_epoch_end(2, {"a": 0.1, "b": 0.1})
    assert numbers(weighting.nadir).tolist() == [1, 2]
    partly = with_words(stch, warmup_epochs=2)
    partly.on_epoch_end(0, {"a": 9.0, "b": 5.0})
    partly.on_epoch_end(1, {"a": 1.0})
    assert numbers(partly.nadir).tolist() == [1, 5]


@pytest.mark.parametrize("mu", [1e-3, 1.0])
@pytest.mark.parametrize("left_out", [1e-9, 1e9, math.nan])
def test_stch_leaves_a_task_out_however_far_its_loss_is(mu: float, left_out: float) -> None:
    found, slope, _ = total(warmed(mu, (2.0, 2.0)), [1.0, left_out], [True, False])
    assert found == pytest.approx(math.log(0.5))
    assert slope == pytest.approx([1, 0])


# --- famo


def test_famos_first_weights_are_the_inverse_losses_and_add_up_to_1() -> None:
    found, slope, _ = total(with_words(famo), L, ALL)
    assert slope == pytest.approx([0.8, 0.2])
    assert found == pytest.approx(0.8 + 0.8)


def test_famo_gives_the_task_that_gained_less_more_weight() -> None:
    weighting = with_words(famo, gamma=0.0)
    weighting.after_step(np.array([1.0, 4.0]), np.array([0.5, 4.0]), np.array(ALL))
    first = numbers(weighting.adam._state[0])
    assert first / 0.1 == pytest.approx(
        [0.173287, -0.173287], abs=1e-6
    )  # Adam's moment after one step: a tenth of the gradient
    assert numbers(weighting.xi) == pytest.approx([-0.025, 0.025], abs=1e-6)
    z = in_use(weighting, [1.0, 1.0], ALL)
    assert z == pytest.approx([0.487503, 0.512497], abs=1e-6)


def test_famo_stays_where_all_gain_alike() -> None:
    weighting = with_words(famo)
    weighting.after_step(np.array([1.0, 4.0]), np.array([0.5, 2.0]), np.array(ALL))
    assert numbers(weighting.xi) == pytest.approx([0, 0], abs=1e-9)


def test_famos_decay_draws_the_weights_together() -> None:
    weighting = with_words(famo, gamma=1.0)
    weighting.xi.assign([1.0, -1.0])
    weighting.after_step(np.array([1.0, 1.0]), np.array([1.0, 1.0]), np.array(ALL))
    assert numbers(weighting.xi) == pytest.approx([0.975, -0.975], abs=1e-6)


def test_famo_leaves_out_a_task_without_labels_and_a_step_that_is_not_finite() -> None:
    three, two = with_words(famo, "abc"), with_words(famo, "ac")
    three.xi.assign([0.3, 7.0, -0.2])
    two.xi.assign([0.3, -0.2])
    three.after_step(np.array([1.0, np.nan, 4.0]), np.array([0.9, np.nan, 1.0]), np.array([True, False, True]))
    two.after_step(np.array([1.0, 4.0]), np.array([0.9, 1.0]), np.array(ALL))
    assert numbers(three.xi)[[0, 2]] == pytest.approx(numbers(two.xi))
    assert numbers(three.xi)[1] == 7
    for variable in three.adam._state:
        assert numbers(variable)[1] == 0
    before = numbers(two.xi)
    two.after_step(np.array([1.0, 4.0]), np.array([np.nan, 1.0]), np.array(ALL))
    assert numbers(two.xi).tolist() == before.tolist()


def test_the_hosts_adam_is_keras_adam() -> None:
    from worker.training.weighting._adam import Adam

    weighting = with_words(equal)
    ours, theirs = Adam(weighting, keras.Model(), 0.025), keras.optimizers.Adam(0.025, epsilon=1e-8)
    x, y = np.zeros(2), keras.Variable(np.zeros(2, "float32"))
    for step in range(20):
        gradient = np.random.default_rng(step).standard_normal(2)
        x = x + ours.step(gradient, np.arange(2))
        theirs.apply([tf.constant(gradient.astype("float32"))], [y])
    assert x == pytest.approx(numbers(y), abs=1e-5)
