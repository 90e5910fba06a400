from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from app.spec.faults import Invalid
from worker.training.objectives import Answers, LogitObjective, Setting, dkd, factor, logits
from worker.training.objectives.dkd import Spec

TEACHER, STUDENT = np.array([[3.0, 1.0, -1.0]]), np.array([[0.0, 1.0, 0.0]])


def answers(student: Any, teachers: Any, labels: Any = None, labelled: Any = None, weights: Any = (1.0,)) -> Answers:
    labels = None if labels is None else np.asarray(labels, np.int32)
    labelled = np.ones(len(student), np.float32) if labels is not None and labelled is None else labelled
    as_float = [np.asarray(teacher, np.float32) for teacher in teachers]
    return Answers("multiclass", np.asarray(student, np.float32), as_float, weights, labels, labelled)


def value(one: Answers, **words: Any) -> np.ndarray:
    return np.asarray(dkd.loss(one, Spec(**words)))


def rows(seed: int, units: int = 4, n: int = 5) -> np.ndarray:
    return 3 * np.random.default_rng(seed).normal(size=(n, units))


def naive(student: np.ndarray, teacher: np.ndarray, label: int, T: float) -> tuple[float, float]:
    """TCKD and NCKD of one row from the paper's definitions: over two, and over C − 1 probabilities."""
    p, q = softmax(student / T), softmax(teacher / T)
    pairs = [np.array([x[label], 1 - x[label]]) for x in (q, p)]
    others = [np.delete(x, label) / (1 - x[label]) for x in (q, p)]
    return tuple(T**2 * float(np.sum(a * np.log(a / b))) for a, b in (pairs, others))  # type: ignore[return-value]


def test_the_fixtures_parts_and_total() -> None:
    target, others, p = (float(np.asarray(part)[0]) for part in dkd.parts(answers(STUDENT, [TEACHER], [0]), 4.0))
    assert (target, others, p) == pytest.approx((1.414231, 0.119636, 0.506480), abs=2e-6)
    assert value(answers(STUDENT, [TEACHER], [0]), alpha=1.0, beta=8.0) == pytest.approx([2.371322], abs=1e-5)


def test_parts_agree_with_the_definitions() -> None:
    student, teacher, labels = rows(0), rows(1), [0, 3, 1, 2, 2]
    target, others, _ = (np.asarray(part) for part in dkd.parts(answers(student, [teacher], labels), 2.0))
    for row, label in enumerate(labels):
        assert (target[row], others[row]) == pytest.approx(
            naive(student[row], teacher[row], label, 2.0), rel=1e-4, abs=1e-5
        )


def test_alpha_1_and_beta_the_rest_of_each_rows_probability_is_plain_distillation_and_beta_1_is_not() -> None:
    student, teacher = rows(2), rows(3)
    one = answers(student, [teacher], [0, 1, 2, 3, 0])
    target, others, p = (np.asarray(part) for part in dkd.parts(one, 4.0))
    plain = np.asarray(logits.divergence(one.student, one.teachers, [1.0], 4.0))
    assert target + (1 - p) * others == pytest.approx(plain, abs=1e-5)
    assert np.abs(target + others - plain).max() > 0.1


def test_0_where_the_student_is_the_teacher_and_blind_to_a_constant() -> None:
    teacher = rows(4)
    assert value(answers(teacher + 5, [teacher], [0, 1, 2, 3, 0])) == pytest.approx(np.zeros(5), abs=1e-4)
    moved = value(answers(rows(5) + 7, [teacher], [0, 1, 2, 3, 0]))
    assert moved == pytest.approx(value(answers(rows(5), [teacher], [0, 1, 2, 3, 0])), rel=1e-4)


def test_a_sure_teacher_gives_finite_numbers() -> None:
    sure = 1000.0 * np.eye(3)
    assert np.isfinite(value(answers(-sure, [sure], [0, 1, 2]), temperature=1.0)).all()


def test_a_row_without_a_label_takes_the_teachers_most_probable_class() -> None:
    student, teacher = rows(6), rows(7)
    likely = teacher.argmax(axis=1)
    hidden = answers(student, [teacher], np.zeros(5), np.zeros(5, np.float32))
    assert value(hidden) == pytest.approx(value(answers(student, [teacher], likely)))
    half = answers(student, [teacher], np.where([1, 1, 0, 0, 0], 2, 0), np.array([1, 1, 0, 0, 0], np.float32))
    assert value(half) == pytest.approx(value(answers(student, [teacher], [2, 2, *likely[2:]])))


def test_two_equal_teachers_are_one_and_the_target_is_the_mean_of_probabilities() -> None:
    student, one, other = rows(8), rows(9), rows(10)
    labels = [0, 1, 2, 3, 0]
    alone = value(answers(student, [one], labels))
    assert value(answers(student, [one, one], labels, weights=(0.4, 0.6))) == pytest.approx(alone, rel=1e-4)
    assert value(answers(student, [one, other], labels, weights=(1.0, 0.0))) == pytest.approx(alone, abs=0)
    mean = np.log((softmax(one / 4, axis=1) + softmax(other / 4, axis=1)) / 2) * 4
    both = value(answers(student, [one, other], labels, weights=(1.0, 1.0)))
    assert both == pytest.approx(value(answers(student, [mean], labels)), rel=1e-3)


def test_the_gradient_is_the_numerical_one_and_none_reaches_the_teacher() -> None:
    tf = pytest.importorskip("tensorflow")
    student, teacher, labels = rows(11), rows(12), [0, 1, 2, 3, 0]
    ours, theirs = tf.Variable(student), tf.Variable(teacher)
    with tf.GradientTape() as tape:
        told = Answers("multiclass", ours, [theirs], [1.0], np.array(labels), np.ones(5, np.float32))
        total = tf.reduce_sum(dkd.loss(told, Spec()))
    found, none = tape.gradient(total, [ours, theirs])
    assert none is None

    def at(z: np.ndarray) -> float:
        each = [naive(z[row], teacher[row], label, 4.0) for row, label in enumerate(labels)]
        return sum(target + 8 * others for target, others in each)

    for place in np.ndindex(*student.shape):
        step = np.zeros_like(student)
        step[place] = 1e-5
        assert found.numpy()[place] == pytest.approx((at(student + step) - at(student - step)) / 2e-5, abs=1e-5)


def test_the_warm_up_is_a_twelfth_of_the_epochs_whatever_their_number() -> None:
    assert dkd.resolve(Spec(), Setting("multiclass", 10, epochs=240)).warmup_epochs == 20
    assert [factor(dkd, Spec(), epoch, 240) for epoch in (0, 9, 19, 20, 239)] == pytest.approx([0.05, 0.5, 1, 1, 1])
    assert [factor(dkd, Spec(), epoch, 24) for epoch in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert factor(dkd, Spec(warmup_epochs=0), 0, 240) == 1.0
    assert factor(dkd, Spec(), 0, 1) == 1.0


@pytest.mark.parametrize(("head", "units"), [("multiclass", 2), ("binary", 1), ("multilabel", 5), ("regression", 1)])
def test_heads_of_fewer_than_three_classes_are_refused(head: Any, units: int) -> None:
    with pytest.raises(Invalid) as refused:
        dkd.resolve(Spec(), Setting(head, units))
    assert [(fault.pointer, fault.hint) for fault in refused.value.faults] == [("/type", "use `logits`")]


def test_the_module_is_an_objective_and_its_example_is_valid() -> None:
    assert isinstance(dkd, LogitObjective)
    assert dkd.resolve(Spec.model_validate(dkd.EXAMPLE), Setting("multiclass", 10)) == Spec()
