from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import expit, softmax
from scipy.stats import entropy

from app.spec.faults import Invalid
from app.spec.tasks import TaskType
from worker.training.objectives import Answers, LogitObjective, Setting, logits
from worker.training.objectives.logits import Spec

tf = pytest.importorskip("tensorflow")

TEACHER, STUDENT = [[3.0, 1.0, -1.0]], [[0.0, 1.0, 0.0]]
HEADS: list[TaskType] = ["multiclass", "binary", "multilabel", "regression"]


def spec(head: TaskType, temperature: float = 4.0) -> Spec:
    return logits.resolve(Spec(temperature=None if head == "regression" else temperature), Setting(head))


def value(
    student: Any, teachers: Any, weights: Any, head: TaskType, T: float = 4.0, dtype: str = "float64"
) -> np.ndarray:
    arrays = [tf.constant(np.asarray(teacher), dtype) for teacher in teachers]
    return np.asarray(
        logits.loss(Answers(head, tf.constant(np.asarray(student), dtype), arrays, weights), spec(head, T))
    )


def gradient(student: Any, teacher: Any, head: TaskType, T: float = 4.0) -> np.ndarray:
    variable = tf.Variable(np.asarray(student, dtype="float64"))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(
            logits.loss(Answers(head, variable, [tf.constant(teacher, "float64")], [1.0]), spec(head, T))
        )
    return np.asarray(tape.gradient(total, variable))


def naive(
    student: np.ndarray, teachers: list[np.ndarray], weights: list[float], head: TaskType, T: float
) -> np.ndarray:
    """From the definitions, with scipy, in float64."""
    shares = np.array(weights) / np.sum(weights)
    if head == "regression":
        target = sum(w * t for w, t in zip(shares, teachers, strict=True))
        return ((student - target) ** 2).mean(axis=1)
    squash = (lambda z: softmax(z, axis=1)) if head == "multiclass" else expit
    q = sum(w * squash(t / T) for w, t in zip(shares, teachers, strict=True))
    p = squash(student / T)
    if head == "multiclass":
        return T**2 * entropy(q, p, axis=1)
    each = entropy(np.stack([q, 1 - q]), np.stack([p, 1 - p]), axis=0)
    return T**2 * each.mean(axis=1)


def rows(seed: int, units: int, scale: float = 3.0, n: int = 4) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, units))


# --- softmax


def test_softmax_gives_the_fixtures_value_and_hand_derived_gradient() -> None:
    assert value(STUDENT, [TEACHER], [1.0], "multiclass") == pytest.approx([1.473274], abs=1e-6)
    found = gradient(STUDENT, TEACHER, "multiclass")
    assert found[0] == pytest.approx([-0.807904, 0.335182, 0.472723], abs=1e-6)
    by_hand = 4 * (softmax(np.array(STUDENT) / 4, axis=1) - softmax(np.array(TEACHER) / 4, axis=1))
    assert found == pytest.approx(by_hand, abs=1e-12)


def test_softmax_does_not_see_a_constant_added_to_the_logits() -> None:
    moved = np.array(STUDENT) + 7.0
    assert value(moved, [TEACHER], [1.0], "multiclass") == pytest.approx([1.473274], abs=1e-6)


def test_at_a_high_temperature_softmax_becomes_the_squared_difference_of_centred_logits() -> None:
    d = np.array(TEACHER) - np.array(STUDENT)
    limit = ((d - d.mean()) ** 2).sum() / (2 * 3)
    assert limit == pytest.approx(1.444444, abs=1e-6)
    student, teacher = tf.constant(STUDENT, "float64"), tf.constant(TEACHER, "float64")
    gaps = [float(logits.divergence(student, [teacher], [1.0], T)[0]) - limit for T in (1e2, 1e3, 1e4)]
    assert abs(gaps[2]) < 1e-4
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.05)  # what is left falls as 1/T
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.02)


def test_a_certain_teacher_at_temperature_1_gives_the_cross_entropy() -> None:
    sure = 1000 * np.array(TEACHER)
    assert value(STUDENT, [sure], [1.0], "multiclass", T=1) == pytest.approx([1.551445], abs=1e-6)
    assert value(STUDENT, [sure], [1.0], "multiclass", T=1, dtype="float32") == pytest.approx([1.551445], abs=1e-5)


# --- sigmoid


@pytest.mark.parametrize("head", ["binary", "multilabel"])
def test_sigmoid_gives_the_fixtures_value_and_hand_derived_gradient(head: TaskType) -> None:
    assert value([[0.0]], [[[2.0]]], [1.0], head, T=2) == pytest.approx([0.443776], abs=1e-6)
    assert gradient([[0.0]], [[2.0]], head, T=2) == pytest.approx(2 * (0.5 - expit(1.0)), abs=1e-12)
    assert gradient([[0.0]], [[2.0]], head, T=2)[0, 0] == pytest.approx(-0.462117, abs=1e-6)


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.5, 20))
@settings(max_examples=40, deadline=None)
def test_sigmoid_is_softmax_over_a_pair_at_any_temperature(s: float, t: float, T: float) -> None:
    one = value([[s]], [[[t]]], [1.0], "binary", T)
    pair = value([[0.0, s]], [[[0.0, t]]], [1.0], "multiclass", T)
    assert one == pytest.approx(pair, abs=1e-9)


def test_multilabel_is_the_mean_over_labels() -> None:
    student, teacher = rows(1, 3), rows(2, 3)
    each = [value(student[:, [i]], [teacher[:, [i]]], [1.0], "binary") for i in range(3)]
    assert value(student, [teacher], [1.0], "multilabel") == pytest.approx(np.mean(each, axis=0))


# --- regression


def test_regression_is_the_squared_error_and_its_gradient_2_of_the_difference_over_the_outputs() -> None:
    student, teacher = rows(3, 2), rows(4, 2)
    assert value(student, [teacher], [1.0], "regression") == pytest.approx(((student - teacher) ** 2).mean(axis=1))
    assert gradient(student, teacher, "regression") == pytest.approx(2 * (student - teacher) / 2)
    assert value(teacher, [teacher], [1.0], "regression") == pytest.approx(np.zeros(4), abs=0)


def test_regression_has_no_temperature() -> None:
    with pytest.raises(Invalid) as refused:
        logits.resolve(Spec(temperature=4.0), Setting("regression"))
    assert [fault.pointer for fault in refused.value.faults] == ["/temperature"]
    assert logits.resolve(Spec(), Setting("regression")).temperature is None
    assert logits.resolve(Spec(), Setting("binary")).temperature == 4.0


# --- every head


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("T", [1.0, 4.0, 20.0])
def test_the_gradient_is_the_numerical_one(head: TaskType, T: float) -> None:
    student, teacher = rows(5, 3), rows(6, 3)
    found, step = gradient(student, teacher, head, T), 1e-6
    for i in range(len(student)):
        for j in range(student.shape[1]):
            up, down = student.copy(), student.copy()
            up[i, j] += step
            down[i, j] -= step
            slope = (value(up, [teacher], [1.0], head, T) - value(down, [teacher], [1.0], head, T))[i] / (2 * step)
            assert found[i, j] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("dtype", "within"), [("float64", 1e-9), ("float32", 1e-4)])
def test_values_agree_with_the_definitions(head: TaskType, dtype: str, within: float) -> None:
    student, teachers = rows(7, 4, n=50), [rows(8, 4, n=50), rows(9, 4, n=50)]
    for T in (1.0, 4.0):
        expected = naive(student, teachers, [0.3, 0.7], head, T)
        assert value(student, teachers, [0.3, 0.7], head, T, dtype) == pytest.approx(expected, abs=within)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(HEADS), st.integers(0, 2**31 - 1), st.integers(1, 6), st.floats(0.5, 100), st.floats(0, 1000),
    st.sampled_from(["float32", "float64"]),
)  # fmt: skip
def test_the_loss_is_never_negative_and_always_finite(
    head: TaskType, seed: int, units: int, T: float, scale: float, dtype: str
) -> None:
    assume(not (head == "multiclass" and units < 2))
    near = rows(seed, units, scale)
    for student in (near + 1e-4 * rows(seed + 1, units, 1.0), rows(seed + 2, units, scale)):
        found = value(student, [near], [1.0], head, T, dtype)
        assert np.isfinite(found).all()
        assert (found >= 0).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_loss_is_exactly_0_where_the_student_equals_the_teacher(head: TaskType, dtype: str, scale: float) -> None:
    student = rows(10, 5, scale, n=64)
    assert value(student, [student], [1.0], head, dtype=dtype) == pytest.approx(np.zeros(64), abs=0)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("seeds", [[11], [11, 12]])
def test_no_gradient_reaches_a_teacher(head: TaskType, seeds: list[int]) -> None:
    teachers = [tf.Variable(rows(seed, 3)) for seed in seeds]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(
            logits.loss(Answers(head, tf.constant(rows(13, 3)), teachers, [1.0] * len(seeds)), spec(head))
        )
    assert tape.gradient(total, teachers) == [None] * len(seeds)


# --- several teachers


@pytest.mark.parametrize("head", HEADS)
def test_two_equal_teachers_are_one_and_a_weight_of_0_silences(head: TaskType) -> None:
    student, one, other = rows(14, 3), rows(15, 3), rows(16, 3)
    alone = value(student, [one], [1.0], head)
    assert value(student, [one, one], [0.4, 0.6], head) == pytest.approx(alone)
    assert value(student, [one, other], [1.0, 0.0], head) == pytest.approx(alone, abs=0)
    assert value(student, [one, other], [2.0, 6.0], head) == pytest.approx(value(student, [one, other], [1, 3], head))


def test_the_target_is_the_mean_of_probabilities_not_of_logits() -> None:
    student, teachers = rows(17, 3), [rows(18, 3), rows(19, 3)]
    found = value(student, teachers, [0.5, 0.5], "multiclass")
    of_logits = value(student, [(teachers[0] + teachers[1]) / 2], [1.0], "multiclass")
    assert found == pytest.approx(naive(student, teachers, [0.5, 0.5], "multiclass", 4.0))
    assert np.abs(found - of_logits).max() > 0.01


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0]])
def test_weights_that_are_no_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="teacher weights: expected numbers of at least 0"):
        value(STUDENT, [TEACHER, TEACHER], weights, "multiclass")


# --- the module's face


def test_the_module_is_an_objective_and_its_example_is_valid() -> None:
    assert isinstance(logits, LogitObjective)
    assert Spec.model_validate(logits.EXAMPLE) == logits.resolve(Spec(), Setting("multiclass"))


@pytest.mark.parametrize(
    "words", [{"temperature": 0}, {"temperature": -1}, {"temp": 2}, {"weight": -1}, {"type": "kd"}]
)
def test_words_that_it_does_not_know_are_refused(words: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate(words)
