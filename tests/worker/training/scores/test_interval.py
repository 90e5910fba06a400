"""The interval over seeds and test rows: against the formulas by hand, on nulls, and where no row tells two arms apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from worker.training.scores import verdict
from worker.training.scores.evaluate import measure
from worker.training.scores.interval import bounds, interval, residual, rows_variance
from worker.training.scores.measures import Measure
from worker.training.scores.verdict import Cost, Outcome, Scored


def mean_measure(terms: Any, metric: str = "accuracy") -> Measure:
    terms = np.asarray(terms, dtype=float)
    return Measure(metric, np.stack([terms, np.ones_like(terms)], axis=1), np.arange(len(terms)), "d")


def test_the_interval_is_that_of_fixture_1() -> None:
    found = interval([0.03, 0.05, 0.04, 0.06, 0.02], 5e-5, 720)
    assert found.v_seed == pytest.approx(5e-5, abs=1e-12)
    assert found.df == pytest.approx(15.9115, abs=5e-5)
    assert stats.t.ppf(0.975, found.df) == pytest.approx(2.12086, abs=5e-6)
    assert [found.lo, found.hi] == pytest.approx([0.018791, 0.061209], abs=1e-6)


def test_the_interval_is_that_of_fixture_2() -> None:
    rows = np.array([[0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]])
    found = interval(rows.mean(axis=1), rows_variance(rows.mean(axis=0)), 6)
    assert found.v_seed == 0
    assert found.v_test == pytest.approx(1 / 135)
    assert found.df == pytest.approx(5)
    assert [found.lo, found.hi] == pytest.approx([0.112093, 0.554574], abs=1e-6)


def test_measures_give_the_interval_of_their_rows_raised_by_a_row_s_worth() -> None:
    rows = np.array([[0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]])
    none = [mean_measure(np.zeros(6))] * 3
    found = verdict.compare([mean_measure(row) for row in rows], none, split_seed=0, alpha=0.05)
    assert found.v_test == pytest.approx(1 / 135 + 1 / 36)
    # One seed's rows have a variance of 4/15 or 2/9 about their mean; the mean of the three less 1/135, by S − 1.
    each = [np.var(row, ddof=1) / 6 for row in rows]
    assert found.v_residual == pytest.approx((np.mean(each) - 1 / 135) / 2)
    assert found.v == pytest.approx(found.v_test)  # the seeds' means are equal: V is not less than either part
    half = stats.t.ppf(0.975, 5) * np.sqrt(1 / 135 + 1 / 36)
    assert [found.lo, found.hi] == pytest.approx([1 / 3 - half, 1 / 3 + half])


def test_the_residual_is_that_of_a_crossed_analysis_of_variance() -> None:
    """The mean square of what is left of each difference beyond its seed's and its row's mean, by S·n."""
    d = np.random.default_rng(5).standard_normal((4, 50)) + np.arange(4)[:, None]
    left = d - d.mean(axis=0) - d.mean(axis=1, keepdims=True) + d.mean()
    naive = (left**2).sum() / (3 * 49) / (4 * 50)
    v_test = rows_variance(d.mean(axis=0))
    assert residual([rows_variance(each) for each in d], v_test) == pytest.approx(naive)
    found = interval(d.mean(axis=1), v_test, 50, v_residual=naive)
    once = found.v_seed + v_test - naive
    df = once**2 / (found.v_seed**2 / 3 + v_test**2 / 49)
    twice = found.v_seed + v_test
    wide = stats.t.ppf(0.975, twice**2 / (found.v_seed**2 / 3 + v_test**2 / 49)) * np.sqrt(twice)
    assert found.hi - found.delta == pytest.approx(min(wide, stats.t.ppf(0.975, df) * np.sqrt(once)))


def test_less_of_what_is_better_lower_is_a_positive_difference() -> None:
    ours, theirs = ([mean_measure(np.full(40, square), "rmse") for square in arm] for arm in ([1.0, 1.21], [4.0, 4.41]))
    found = verdict.compare(ours, theirs, split_seed=0, alpha=0.05)
    assert found.delta == pytest.approx(1.0)


def test_one_seed_leaves_the_interval_unknown() -> None:
    found = interval([0.1], 1e-4, 100)
    assert found.delta == 0.1
    assert math.isnan(found.lo)
    assert math.isnan(found.hi)


def test_equal_arms_have_an_interval_of_no_width() -> None:
    found = interval([0.0, 0.0, 0.0], 0.0, 100)
    assert (found.lo, found.hi) == (0.0, 0.0)


@given(
    st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=10),
    st.floats(1e-9, 1e-2),
    st.integers(30, 5000),
    st.floats(0.001, 0.2),
)
def test_the_interval_turns_its_sign_with_the_arms_and_widens_with_certainty(
    differences: list[float], v_test: float, n: int, alpha: float
) -> None:
    there = interval(differences, v_test, n, alpha)
    back = interval([-d for d in differences], v_test, n, alpha)
    assert [back.delta, back.lo, back.hi] == pytest.approx([-there.delta, -there.hi, -there.lo])
    assert there.lo <= there.delta <= there.hi
    surer = interval(differences, v_test, n, alpha / 2)
    assert surer.lo < there.lo
    assert surer.hi > there.hi


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("n", [60, 200, 719])
def test_luck_is_rarely_called_help_and_more_often_by_a_rule_over_seeds_alone(seeds: int, n: int) -> None:
    """No true effect; variance as measured for transfer at 20 labels a class: seeds 1, rows 14, rest 25 points."""
    rng = np.random.default_rng([seeds, n])
    runs = 4000
    differences, rows = np.empty((runs, seeds)), np.empty(runs)
    for start in range(0, runs, 250):
        drawn = 0.25 * rng.standard_normal((250, seeds, n))
        drawn += 0.01 * rng.standard_normal((250, seeds, 1)) + 0.14 * rng.standard_normal((250, 1, n))
        differences[start : start + 250] = drawn.mean(axis=2)
        rows[start : start + 250] = drawn.mean(axis=1).var(axis=1, ddof=1) / n
    v_seed = differences.var(axis=1, ddof=1) / seeds
    lo, *_ = bounds(differences.mean(axis=1), v_seed, rows, 0.0, seeds, n, 0.05)
    over_seeds = differences.mean(axis=1) - stats.t.ppf(0.975, seeds - 1) * np.sqrt(v_seed)
    assert np.mean(lo > 0) <= 0.037
    assert np.mean(over_seeds > 0) > 1.5 * np.mean(lo > 0)


@pytest.mark.parametrize(
    ("seed_sd", "row_sd", "rest"), [(0.01, 0.14, 0.25), (0, 0, 0.3), (0.02, 0.3, 0), (0, 0.2, 0.2)]
)
def test_a_residual_that_counts_once_keeps_the_error_and_finds_more(seed_sd: float, row_sd: float, rest: float) -> None:
    """Means alone are drawn: of the seeds (a), of the rows (b) and of both (c), whose variances are known."""
    for seeds, n in ((3, 200), (5, 719), (10, 719)):
        rng = np.random.default_rng([seeds, n])
        runs = 4000
        a = seed_sd * rng.standard_normal((runs, seeds))
        c = rest / np.sqrt(n) * rng.standard_normal((runs, seeds))
        b = row_sd / np.sqrt(n) * rng.standard_normal((runs, 1))
        differences = a + b + c
        v_test = (row_sd**2 + rest**2 / seeds) / n * rng.chisquare(n - 1, runs) / (n - 1)
        v_seed = differences.var(axis=1, ddof=1) / seeds
        v_residual = rest**2 / (seeds * n) * rng.chisquare((seeds - 1) * (n - 1), runs) / ((seeds - 1) * (n - 1))
        wide = bounds(differences.mean(axis=1), v_seed, v_test, 0.0, seeds, n, 0.05)[0]
        lo = bounds(differences.mean(axis=1), v_seed, v_test, v_residual, seeds, n, 0.05)[0]
        assert np.mean(lo > 0) <= 0.04
        assert (lo >= wide).all()
        found, before = (np.mean(each + 0.02 > 0) for each in (lo, wide))
        if rest > row_sd and seeds >= 5:
            assert found > before


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
@pytest.mark.parametrize(("n", "decision"), [(30, "inconclusive"), (60, "inconclusive"), (719, "no_effect")])
def test_arms_that_few_test_rows_do_not_tell_apart_are_not_equal_yet(metric: str, n: int, decision: str) -> None:
    """Both arms answer alike, 8 of 10 right. Of 60 rows that says no more than that they differ by less than 3 points."""
    labels = np.arange(n) % 2
    answers = np.where(np.arange(n) % 10 < 8, labels, 1 - labels)
    made = [measure("binary", answers.astype(float), labels, metric=metric) for _ in range(5)]
    arm = [Outcome(k, {"digit": Scored(one, Cost(300, 1e-3, 1.0))}) for k, one in enumerate(made)]
    told = verdict.judge(arm, arm, seeds=5)
    assert told["decision"] == decision
    half = stats.t.ppf(0.975, n - 1) / n
    assert told["interval"] == pytest.approx([-half, half])
