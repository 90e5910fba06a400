from __future__ import annotations

import numpy as np
import pytest

from worker.training.objectives import standardised
from worker.training.objectives.logits import divergence

TEACHER, STUDENT = np.array([[3.0, 1.0, -1.0]], np.float32), np.array([[0.0, 1.0, 0.0]], np.float32)


def test_the_fixtures_value_with_ddof_0() -> None:
    found = divergence(standardised(STUDENT), [standardised(TEACHER)], [1.0], 2.0)
    assert np.asarray(found) == pytest.approx([1.157248], abs=1e-5)
    one = [(x - x.mean()) / x.std(ddof=1) for x in (STUDENT, TEACHER)]
    assert np.asarray(divergence(one[0], [one[1]], [1.0], 2.0)) == pytest.approx(
        [0.760936], abs=1e-5
    )  # what ddof 1 would give


def test_scale_and_shift_of_the_logits_vanish() -> None:
    teacher = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    found = divergence(standardised(3 * teacher + 5), [standardised(teacher)], [1.0], 2.0)
    assert np.asarray(found) == pytest.approx(np.zeros(6), abs=1e-5)


def test_rows_have_mean_0_and_deviation_1() -> None:
    found = np.asarray(standardised(np.random.default_rng(1).normal(2, 9, size=(6, 5)).astype(np.float32)))
    assert found.mean(axis=1) == pytest.approx(np.zeros(6), abs=1e-5)
    assert found.std(axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def test_equal_logits_give_zeros_and_no_gradient() -> None:
    tf = pytest.importorskip("tensorflow")
    flat = tf.Variable(np.full((1, 3), 2.5, np.float32))
    with tf.GradientTape() as tape:
        found = standardised(flat)
        total = tf.reduce_sum(found * np.array([[1.0, 2.0, 3.0]], np.float32))
    assert np.array_equal(found.numpy(), np.zeros((1, 3)))
    assert np.array_equal(tape.gradient(total, flat).numpy(), np.zeros((1, 3)))
