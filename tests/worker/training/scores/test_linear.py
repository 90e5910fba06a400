"""Linear models without a network, against scikit-learn's with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression, Ridge

from worker.training.scores import linear


def scaled(load: Callable[..., Any]) -> tuple[np.ndarray, np.ndarray]:
    x, y = load(return_X_y=True)
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32), y


def test_several_classes_are_told_apart_as_scikit_learn_does() -> None:
    x, y = scaled(load_wine)
    ours = linear.softmax(x[::2], y[::2], 3)(x)
    assert ours == pytest.approx(
        LogisticRegression(tol=1e-8, max_iter=9999).fit(x[::2], y[::2]).predict_proba(x), abs=1e-3
    )


def test_a_class_that_no_training_row_has_gets_no_probability() -> None:
    x, y = scaled(load_wine)
    two = y != 1
    ours = linear.softmax(x[two], y[two], 4)(x)
    assert (ours[:, [1, 3]] == 0).all()
    assert ours.sum(axis=1) == pytest.approx(np.ones(len(x)))
    assert (linear.softmax(x[:5], np.full(5, 2), 4)(x) == np.eye(4)[2]).all(), "one class alone is certain"


def test_two_classes_and_labels_one_by_one_with_gaps() -> None:
    x, y = scaled(load_breast_cancer)
    labels = np.stack([y, x[:, 0] > 0], axis=1).astype(np.float32)
    known = np.arange(len(x)) % 3 > 0
    labels[~known, 1] = np.nan
    ours = linear.sigmoid(x, labels)(x)
    for place, rows in enumerate((np.full(len(x), True), known)):
        theirs = LogisticRegression(tol=1e-8, max_iter=9999).fit(x[rows], labels[rows, place]).predict_proba(x)[:, 1]
        assert ours[:, place] == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("rows", [400, 6])  # fewer than columns too
def test_numbers_are_ridge_regressions(rows: int) -> None:
    x, y = scaled(load_diabetes)
    both = np.stack([y, y**2], axis=1)
    ours = linear.ridge(x[:rows], both[:rows])(x)
    assert ours == pytest.approx(Ridge().fit(x[:rows].astype(np.float64), both[:rows]).predict(x), rel=1e-6)


def test_columns_that_say_nothing_or_stand_far_off_do_no_harm() -> None:
    x, y = scaled(load_wine)
    wide = np.hstack([x, np.zeros((len(x), 1), np.float32), x[:, :1] + 1000])
    assert (linear.softmax(wide, y, 3)(wide).argmax(axis=1) == y).mean() > 0.99
    assert np.isfinite(linear.ridge(wide, y[:, None])(wide)).all()
