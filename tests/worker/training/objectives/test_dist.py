from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy, pearsonr

from app.spec.faults import Invalid
from worker.training.objectives import Answers, LogitObjective, Setting, dist, logits
from worker.training.objectives.dist import Spec

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])


def answers(student: Any, *teachers: Any, weights: Any = (1.0,)) -> Answers:
    return Answers(
        "multiclass", np.asarray(student, np.float32), [np.asarray(one, np.float32) for one in teachers], weights
    )


def value(one: Answers, **words: Any) -> float:
    return float(np.asarray(dist.loss(one, Spec(**words))))


def rows(seed: int, n: int = 6, units: int = 4) -> np.ndarray:
    return 2 * np.random.default_rng(seed).normal(size=(n, units))


def naive(student: np.ndarray, teacher: np.ndarray, T: float) -> tuple[float, float]:
    p, q = softmax(student / T, axis=1), softmax(teacher / T, axis=1)
    inter = np.mean([1 - pearsonr(p[row], q[row])[0] for row in range(len(p))])
    intra = np.mean([1 - pearsonr(p[:, column], q[:, column])[0] for column in range(p.shape[1])])
    return float(inter), float(intra)


def test_the_fixtures_parts() -> None:
    inter, intra = dist.parts(answers(np.log(P), np.log(np.roll(P, 1, axis=1))), 1.0)
    assert float(inter) == pytest.approx(1.5, abs=1e-5)
    assert float(intra) == pytest.approx(1.495943, abs=1e-5)


def test_a_student_mixed_with_the_uniform_distribution_loses_nothing_where_plain_distillation_does() -> None:
    mixed = answers(np.log(0.3 * P + 0.7 / 3), np.log(P))
    assert value(mixed) == pytest.approx(0, abs=1e-6)
    plain = np.asarray(logits.divergence(mixed.student, mixed.teachers, [1.0], 1.0))
    assert plain.mean() == pytest.approx(float(np.mean(entropy(P, 0.3 * P + 0.7 / 3, axis=1))), abs=1e-5)  # .148


def test_parts_agree_with_pearsons_correlation() -> None:
    student, teacher = rows(0), rows(1)
    found = [float(np.asarray(part)) for part in dist.parts(answers(student, teacher), 2.0)]
    inter, intra = naive(student, teacher, 2.0)
    assert found == pytest.approx([inter, intra], abs=1e-5)
    weighed = value(answers(student, teacher), temperature=2.0, beta=3.0, gamma=0.5)
    assert weighed == pytest.approx(4 * (3 * inter + 0.5 * intra), abs=1e-4)


def test_it_is_not_blind_to_the_scale_of_logits() -> None:
    teacher = rows(2)
    assert value(answers(teacher, teacher)) == pytest.approx(0, abs=1e-6)
    assert value(answers(4 * teacher, teacher)) > 0.01


def test_a_constant_column_or_row_counts_as_unrelated_and_gives_finite_gradients() -> None:
    tf = pytest.importorskip("tensorflow")
    student = tf.Variable(np.zeros((4, 3), np.float32))
    with tf.GradientTape() as tape:
        total = dist.loss(Answers("multiclass", student, [rows(3, 4, 3).astype(np.float32)], [1.0]), Spec())
    assert float(total) == pytest.approx(2.0)
    assert np.array_equal(tape.gradient(total, student).numpy(), np.zeros((4, 3)))


def test_the_gradient_is_the_numerical_one_and_none_reaches_the_teacher() -> None:
    tf = pytest.importorskip("tensorflow")
    start, teacher = rows(4), rows(5)
    ours, theirs = tf.Variable(start), tf.Variable(teacher)
    with tf.GradientTape() as tape:
        total = dist.loss(Answers("multiclass", ours, [theirs], [1.0]), Spec())
    found, none = tape.gradient(total, [ours, theirs])
    assert none is None
    for place in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-5
        slope = (sum(naive(start + step, teacher, 1.0)) - sum(naive(start - step, teacher, 1.0))) / 2e-5
        assert found.numpy()[place] == pytest.approx(slope, abs=1e-6)


def test_several_teachers_are_their_mean_of_probabilities() -> None:
    student, one, other = rows(6), rows(7), rows(8)
    mean = np.log(0.25 * softmax(one, axis=1) + 0.75 * softmax(other, axis=1))
    assert value(answers(student, one, other, weights=(1.0, 3.0))) == pytest.approx(
        value(answers(student, mean)), abs=1e-5
    )


@pytest.mark.parametrize(
    "setting",
    [Setting("multiclass", 2), Setting("binary", 1), Setting("regression", 3), Setting("multiclass", 3, batch=2)],
)
def test_two_classes_or_two_rows_are_refused(setting: Setting) -> None:
    with pytest.raises(Invalid) as refused:
        dist.resolve(Spec(), setting)
    assert [fault.pointer for fault in refused.value.faults] == ["/type"]
    assert dist.resolve(Spec(), Setting("multiclass", 3, batch=3)) == Spec()


def test_the_module_is_an_objective_and_its_example_is_valid() -> None:
    assert isinstance(dist, LogitObjective)
    assert Spec.model_validate(dist.EXAMPLE) == Spec()
