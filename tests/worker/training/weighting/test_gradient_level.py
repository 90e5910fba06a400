"""The weightings of level "gradient": what they make of hand-made gradients. NumPy alone but for gradnorm's state."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from worker.training.weighting import GradientStatistics, cagrad, gradnorm, mgda, numbers, pcgrad
from worker.training.weighting._simplex import least

keras = pytest.importorskip("keras")

MODULES = [pcgrad, mgda, cagrad, gradnorm]


def made(module: ModuleType, tasks: int = 2, **words: Any) -> Any:
    weighting = module.Weighting(module.Spec(**words), {f"t{k}": 1.0 for k in range(tasks)})
    weighting.build(keras.Model())
    return weighting


def moment(gradients: Any, losses: Any = None, seed: int = 0, number: int = 0) -> GradientStatistics:
    g = np.array(gradients, float)
    return GradientStatistics(
        g @ g.T, g @ g.T, np.ones(len(g)) if losses is None else np.array(losses), np.arange(len(g)), seed, number
    )


def combined(weighting: Any, gradients: Any, **more: Any) -> np.ndarray:
    return weighting.weigh(moment(gradients, **more)) @ np.array(gradients, float)


# --- pcgrad


def naive_pcgrad(g: np.ndarray, seed: int, number: int) -> np.ndarray:
    """Algorithm 1 on the vectors themselves."""
    drawn, total = np.random.default_rng([seed, number, *b"pcgrad"]), np.zeros(g.shape[1])
    for i in range(len(g)):
        one = g[i].copy()
        for j in drawn.permutation(len(g)):
            if j != i and one @ g[j] < 0:
                one -= one @ g[j] / (g[j] @ g[j]) * g[j]
        total += one
    return total


def test_pcgrad_projects_two_that_conflict() -> None:
    assert combined(made(pcgrad), [(1, 0), (-1, 1)]) == pytest.approx([0.5, 1.5], abs=1e-12)


def test_pcgrad_without_conflict_is_exactly_the_sum() -> None:
    g = np.abs(np.random.default_rng(0).standard_normal((4, 9)))
    assert made(pcgrad, 4).weigh(moment(g)).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("k", [2, 3, 6])
def test_pcgrad_on_the_gramian_is_pcgrad_on_the_gradients(k: int) -> None:
    for number in range(20):
        g = np.random.default_rng(number).standard_normal((k, 8))
        assert combined(made(pcgrad, k), g, seed=4, number=number) == pytest.approx(
            naive_pcgrad(g, 4, number), abs=1e-9
        )


def test_pcgrads_order_comes_from_seed_and_step() -> None:
    g = np.random.default_rng(1).standard_normal((5, 3))
    found = {
        tuple(np.round(combined(made(pcgrad, 5), g, seed=s, number=n), 9))
        for s, n in itertools.product(range(3), range(3))
    }
    assert len(found) > 1
    assert (
        combined(made(pcgrad, 5), g, seed=1, number=2).tolist()
        == combined(made(pcgrad, 5), g, seed=1, number=2).tolist()
    )


# --- mgda


def test_mgda_is_k_times_the_shortest_vector_between_the_gradients() -> None:
    weights = made(mgda).weigh(moment([(1, 0), (0, 2)]))
    assert weights / 2 == pytest.approx([0.8, 0.2], abs=1e-9)
    shortest = combined(made(mgda), [(1, 0), (0, 2)]) / 2
    assert shortest == pytest.approx([0.8, 0.4], abs=1e-9)
    assert [shortest @ (1, 0), shortest @ (0, 2)] == pytest.approx([0.8, 0.8], abs=1e-9)


def test_mgda_takes_the_shorter_of_two_that_agree() -> None:
    assert combined(made(mgda), [(1, 0), (3, 0)]) / 2 == pytest.approx([1, 0])


def test_mgda_is_not_stopped_by_a_gradient_of_0_but_by_opposite_ones() -> None:
    assert combined(made(mgda, 3), [(1, 0), (0, 0), (0, 2)]) / 2 == pytest.approx([0.8, 0.4], abs=1e-9)
    assert combined(made(mgda), [(1, 0), (-2, 0)]) == pytest.approx([0, 0], abs=1e-9)
    assert made(mgda).weigh(moment([(0, 0), (0, 0)])).tolist() == [0, 0]


@pytest.mark.parametrize("k", [3, 4, 7])
def test_mgda_helps_all_tasks_alike_or_more(k: int) -> None:
    """The optimality of the shortest vector d: g·d ≥ ‖d‖² for every task, with equality where its weight is not 0."""
    for seed in range(10):
        g = np.random.default_rng(seed).standard_normal((k, 20)) + 0.5
        weights = made(mgda, k).weigh(moment(g)) / k
        assert weights.sum() == pytest.approx(1)
        assert weights.min() >= 0
        d = weights @ g
        assert (g @ d).min() >= d @ d - 1e-6
        assert (g @ d)[weights > 1e-6] == pytest.approx(d @ d, abs=1e-5)


# --- cagrad


def test_cagrad_on_the_fixture() -> None:
    g = [(1, 0), (-1, 1)]
    direction = combined(made(cagrad, calpha=0.5, rescale=0), g) / 2
    assert direction == pytest.approx([0.25, 0.5], abs=1e-9)
    assert [direction @ (1, 0), direction @ (-1, 1)] == pytest.approx([0.25, 0.25], abs=1e-9)
    assert combined(made(cagrad), g) == pytest.approx(2 * np.array([0.25, 0.5]) / 1.25, abs=1e-9)
    assert combined(made(cagrad, rescale=2), g) == pytest.approx(2 * np.array([0.25, 0.5]) / 1.5, abs=1e-9)


def test_cagrad_with_c_0_is_the_sum_of_the_gradients() -> None:
    g = np.random.default_rng(0).standard_normal((4, 6))
    assert combined(made(cagrad, 4, calpha=0.0), g) == pytest.approx(g.sum(axis=0), abs=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_cagrad_lengthens_equal_gradients(k: int) -> None:
    g = np.tile([3.0, 4.0], (k, 1))
    assert combined(made(cagrad, k), g) == pytest.approx(k * 1.5 / 1.25 * g[0], abs=1e-9)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_cagrad_stays_near_the_mean_and_helps_the_worst_task_most(k: int) -> None:
    """No other direction in the ball of radius c·‖g₀‖ round g₀ helps the worst task more."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        g = rng.standard_normal((k, 6))
        mean = g.mean(axis=0)
        direction = combined(made(cagrad, k, rescale=0), g) / k
        radius = 0.5 * np.linalg.norm(mean)
        assert np.linalg.norm(direction - mean) == pytest.approx(radius, rel=1e-6)
        others = rng.standard_normal((4000, 6))
        others = mean + radius * others / np.linalg.norm(others, axis=1, keepdims=True)
        assert (g @ direction).min() >= (others @ g.T).min(axis=1).max() - 1e-9


def test_the_solver_finds_what_a_fine_grid_finds() -> None:
    steps = np.arange(101) / 100
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9])
    for seed in range(12):
        rng = np.random.default_rng(seed)
        g, b, a = rng.standard_normal((3, 4)), rng.standard_normal(3) * (seed % 3), rng.uniform(0, 2)
        gram = g @ g.T

        def worth(w: np.ndarray) -> Any:
            return w @ b + a * np.sqrt(np.einsum("ni,ij,nj->n", w, gram, w))  # noqa: B023

        w = least(gram, b, a)
        assert w.sum() == pytest.approx(1)
        assert w.min() >= 0
        assert worth(w[None])[0] <= worth(grid).min() + 1e-9


# --- gradnorm


def test_gradnorms_targets_on_the_fixture() -> None:
    weighting = made(gradnorm)
    weighting.start({"t0": 2.0, "t1": 4.0})
    here, lengths, losses = np.arange(2), np.array([1.0, 3.0]), np.array([1.0, 4.0])
    assert weighting.targets(np.ones(2), lengths, losses, here) == pytest.approx([1.088662, 3.079201], abs=1e-6)


def test_gradnorm_with_alpha_0_goes_to_equal_lengths() -> None:
    weighting = made(gradnorm, alpha=0.0)
    here, lengths, losses = np.arange(2), np.array([1.0, 3.0]), np.array([1.0, 1.0])
    assert weighting.slopes(np.ones(2), lengths, losses, here).tolist() == [-1, 3]
    still = weighting.slopes(np.array([1.5, 0.5]), lengths, losses, here)
    assert weighting.targets(np.array([1.5, 0.5]), lengths, losses, here) == pytest.approx([1.5, 1.5])
    assert still.tolist() == [0, 0]
    for _ in range(300):
        weighting.weigh(moment([(1, 0), (0, 3)]))
    assert numbers(weighting.w) == pytest.approx([1.5, 0.5], abs=0.05)  # Adam's last steps go to and fro


def test_gradnorms_first_step_uses_weights_of_1_and_they_go_on_adding_up_to_k() -> None:
    weighting = made(gradnorm, 3)
    g = [(1, 0), (0, 3), (2, 2)]
    assert weighting.weigh(moment(g)).tolist() == [1, 1, 1]
    for step in range(5):
        assert numbers(weighting.w).sum() == pytest.approx(3, abs=1e-5)
        assert weighting.weigh(moment(g, losses=[1 + step, 1, 2])).sum() == pytest.approx(3, abs=1e-5)
    assert numbers(weighting.w).tolist() != [1, 1, 1]


def test_gradnorm_looks_at_the_last_shared_layer() -> None:
    one, other = made(gradnorm, alpha=0.0), made(gradnorm, alpha=0.0)
    whole, last = np.eye(2), np.diag([1.0, 9.0])
    one.weigh(GradientStatistics(whole, last, np.ones(2), np.arange(2)))
    other.weigh(moment([(1, 0), (0, 3)]))
    assert numbers(one.w).tolist() == numbers(other.w).tolist()


def test_gradnorm_leaves_the_state_of_a_task_without_labels_alone() -> None:
    weighting = made(gradnorm, 3)
    weighting.start({"t0": 2.0, "t1": 1.0, "t2": 4.0})
    weighting.w.assign([0.5, 1.4, 1.1])
    g = np.array([(1.0, 0.0), (0.0, 3.0)])
    used = weighting.weigh(GradientStatistics(g @ g.T, g @ g.T, np.ones(2), np.array([0, 2])))
    assert used == pytest.approx(np.array([0.5, 1.1]) * 2 / 1.6)
    after = numbers(weighting.w)
    assert after[1] == np.float32(1.4)
    assert after.sum() == pytest.approx(3, abs=1e-6)
    for variable in weighting.adam._state:
        assert numbers(variable)[1] == 0


def test_gradnorm_wants_a_first_loss_of_every_task() -> None:
    with pytest.raises(ValueError, match="none for t1"):
        made(gradnorm).start({"t0": 1.0})


# --- what holds for every one


@pytest.mark.parametrize("module", [pcgrad, mgda, gradnorm])
def test_one_task_alone_gets_its_plain_gradient(module: ModuleType) -> None:
    assert combined(made(module, 1), [(3.0, -4.0)]) == pytest.approx([3, -4])


@pytest.mark.parametrize("module", MODULES)
def test_the_scale_of_all_gradients_together_does_not_matter(module: ModuleType) -> None:
    g = np.random.default_rng(2).standard_normal((3, 5))
    assert made(module, 3).weigh(moment(1e-4 * g)) == pytest.approx(made(module, 3).weigh(moment(g)), abs=1e-6)


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_the_face_and_a_valid_example(module: ModuleType) -> None:
    assert module.Weighting.level == "gradient"
    assert module.Spec.model_validate(module.EXAMPLE).name == module.__name__.rsplit(".", 1)[1]
