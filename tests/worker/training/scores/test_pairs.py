"""Pairs of rows: all there are or a fixed draw, the area and the equal error rate against scikit-learn, resampling against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from worker.training.scores import evaluate, pairs
from worker.training.scores.measures import resample


def vectors(rng: np.random.Generator, identities: np.ndarray, noise: float = 1.0) -> np.ndarray:
    centres = rng.normal(0, 1, (identities.max() + 1, 5))
    return np.asarray(centres[identities] + rng.normal(0, noise, (len(identities), 5)))


def test_of_few_rows_all_pairs_of_one_identity_are_there_and_as_many_of_two() -> None:
    identities = np.array([3, 1, 3, 2, 1, 3, 7])
    same, different = pairs.drawn(identities)
    every = list(combinations(range(7), 2))
    assert {tuple(pair) for pair in same.tolist()} == {(i, j) for i, j in every if identities[i] == identities[j]}
    assert len(same) == len(different) == 4
    assert len({tuple(pair) for pair in different.tolist()}) == 4
    assert all(i < j and identities[i] != identities[j] for i, j in different)


def test_of_many_rows_pairs_are_drawn_and_always_the_same() -> None:
    identities = np.random.default_rng(0).integers(0, 40, 3000)
    same, different = pairs.drawn(identities)
    assert len(same) == len(different) == pairs.MOST_PAIRS
    for some, alike in ((same, True), (different, False)):
        assert len(np.unique(some, axis=0)) == len(some)
        assert (some[:, 0] < some[:, 1]).all()
        assert ((identities[some[:, 0]] == identities[some[:, 1]]) == alike).all()
        assert len(np.unique(some)) > 2990, "from all rows"
    assert np.array_equal(same, pairs.drawn(identities)[0])
    assert np.array_equal(different, pairs.drawn(identities + 5)[1]), "names mean nothing"


def test_the_order_of_pairs_is_whole_for_large_numbers_too() -> None:
    numbers = np.array(
        [0, 1, 2, 3, 4, 5, *range(2**49 - 3, 2**49 + 3), 2**31 * (2**31 - 1) // 2 - 1, 2**31 * (2**31 - 1) // 2]
    )
    for number, (i, j) in zip(numbers.tolist(), pairs._triangle(numbers).tolist(), strict=True):
        assert 0 <= j < i
        assert i * (i - 1) // 2 + j == number


@pytest.mark.parametrize("places", [15, 1], ids=["different scores", "many equal scores"])
def test_the_area_and_the_equal_error_rate_are_scikit_learn_s(places: int) -> None:
    rng = np.random.default_rng(1)
    for noise in (0.5, 1.0, 4.0):
        identities = rng.integers(0, 30, 150)
        told = pairs.told(vectors(rng, identities, noise), identities)
        told = pairs.Told(told.same, told.different, told.of_same.round(places), told.of_different.round(places))
        truth = np.repeat([1, 0], [len(told.same), len(told.different)])
        scores = np.concatenate([told.of_same, told.of_different])
        assert pairs.ROC_AUC.of(pairs.parts(told, 150).sum(axis=0)) == pytest.approx(roc_auc_score(truth, scores))
        accepted, found, thresholds = roc_curve(truth, scores, drop_intermediate=False)
        rate, threshold = pairs.equal_error(told)
        above = np.flatnonzero(accepted >= 1 - found)[0]
        ends = accepted[above - 1 : above + 1], 1 - found[above - 1 : above + 1]
        gaps = ends[1] - ends[0]
        expected = ends[0][0] + (ends[0][1] - ends[0][0]) * gaps[0] / (gaps[0] - gaps[1])
        assert rate == pytest.approx(expected)
        assert threshold == thresholds[above]


def test_scores_that_tell_all_or_nothing() -> None:
    same, different = np.array([[0, 1], [2, 3]]), np.array([[0, 2], [1, 3]])
    for one, other, area, rate in (
        ([0.9, 0.8], [0.1, 0.2], 1.0, 0.0),
        ([0.1, 0.2], [0.9, 0.8], 0.0, 1.0),
        ([0.5, 0.5], [0.5, 0.5], 0.5, 0.5),
    ):
        told = pairs.Told(same, different, np.array(one), np.array(other))
        assert pairs.ROC_AUC.of(pairs.parts(told, 4).sum(axis=0)) == pytest.approx(area)
        assert pairs.equal_error(told)[0] == pytest.approx(rate)


def test_the_bootstrap_over_identities_has_the_spread_of_other_identities() -> None:
    """Against test sets of identities drawn anew; a little more, since a pair of two is drawn with either of them."""
    rng, identities = np.random.default_rng(2), np.repeat(np.arange(40), 8)
    several = [
        evaluate.measure("embedding", vectors(rng, identities, 1.2), identities, metric="roc_auc", units=identities)
        for _ in range(250)
    ]
    assert several[0].n_units == 40
    spread = np.std([measure.value for measure in several])
    ours = np.mean([resample([measure], 0, 500)[0].std() for measure in several[:40]])
    assert 0.9 < ours / spread < 1.3
    rows = [replace(measure, units=np.arange(len(identities))) for measure in several[:40]]
    assert np.mean([resample([measure], 0, 500)[0].std() for measure in rows]) < 0.85 * ours, "rows are not independent"


def test_resampling_everything_once_gives_the_area_itself() -> None:
    rng, identities = np.random.default_rng(3), np.repeat(np.arange(12), 4)
    told = pairs.told(vectors(rng, identities), identities)
    assert pairs.ROC_AUC.of(3 * pairs.parts(told, 48).sum(axis=0)) == pytest.approx(
        np.mean([score > other for score in told.of_same for other in told.of_different])
    )
