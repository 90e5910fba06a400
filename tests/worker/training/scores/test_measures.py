from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.training.scores import verdict
from worker.training.scores.measures import Measure, resample


def mean_measure(terms: Any, metric: str = "accuracy", dataset: str = "d", units: Any = None) -> Measure:
    terms = np.asarray(terms, dtype=float)
    unit = np.arange(len(terms)) if units is None else np.asarray(units)
    return Measure(metric, np.stack([terms, np.ones_like(terms)], axis=1), unit, dataset)


def test_the_bootstrap_agrees_with_the_formula_for_a_mean() -> None:
    rng = np.random.default_rng(1)
    seeds, n = 5, 400
    hard = rng.random(n)
    treated = [mean_measure(rng.random(n) > hard * 0.4) for _ in range(seeds)]
    control = [mean_measure(rng.random(n) > hard * 0.6) for _ in range(seeds)]
    exact = verdict.compare(treated, control, split_seed=0, alpha=0.05).v_test
    drawn = resample([*treated, *control], 0)
    # A variance from 2,000 draws has a standard error of 3 %.
    assert np.var(drawn[:seeds].mean(0) - drawn[seeds:].mean(0), ddof=1) == pytest.approx(exact, rel=0.12)


def test_one_resample_serves_every_seed_and_both_arms() -> None:
    rng = np.random.default_rng(2)
    one = mean_measure(rng.random(50) > 0.3)
    first, second = resample([one, one], 7, 100)
    assert np.array_equal(first, second)
    assert np.array_equal(resample([one], 7, 100)[0], first)
    assert not np.array_equal(resample([one], 8, 100)[0], first)


def test_tasks_on_one_data_set_are_resampled_together_and_on_two_apart() -> None:
    right = np.random.default_rng(3).random(80) > 0.4
    together = resample([mean_measure(right, dataset="a"), mean_measure(right, dataset="a")], 0)
    apart = resample([mean_measure(right, dataset="a"), mean_measure(right, dataset="b")], 0)
    assert np.corrcoef(together)[0, 1] == pytest.approx(1)
    assert abs(np.corrcoef(apart)[0, 1]) < 0.1


def test_tasks_labelled_on_different_rows_share_the_rows_that_both_have() -> None:
    rng = np.random.default_rng(4)
    right = rng.random(300) > 0.4
    half = mean_measure(right[:150], units=np.arange(150))
    whole = mean_measure(right, units=np.arange(300))
    drawn = resample([half, whole], 0)
    assert 0.5 < np.corrcoef(drawn)[0, 1] < 0.9  # √(150/300) = 0.71


def test_the_resampled_values_are_those_of_the_resampled_rows() -> None:
    """Against the plain way: draw rows, compute the metric from them."""
    rng = np.random.default_rng(5)
    truth, said = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    own = np.eye(3)[truth]
    measure = Measure("balanced_accuracy", np.hstack([own * (said == truth)[:, None], own]), np.arange(90))
    twin = np.random.default_rng([0, 0])
    naive = []
    for _ in range(20):
        rows = twin.integers(0, 90, 90)
        naive.append(np.mean([np.mean(said[rows][truth[rows] == c] == c) for c in np.unique(truth[rows])]))
    assert resample([measure], 0, 20)[0] == pytest.approx(naive)


def test_rows_of_a_group_are_drawn_together() -> None:
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), 5)
    gain = np.repeat(rng.random(40) < 0.3, 5)  # all rows of a group gain or none does
    grouped = [mean_measure(gain, units=groups)], [mean_measure(np.zeros(200), units=groups)]
    single = [mean_measure(gain)], [mean_measure(np.zeros(200))]
    by_group = verdict.compare(*grouped, split_seed=0, alpha=0.05).v_test
    by_row = verdict.compare(*single, split_seed=0, alpha=0.05).v_test
    assert by_group == pytest.approx(5 * by_row, rel=0.15)
