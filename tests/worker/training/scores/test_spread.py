"""Arms of which one varies many times as much as the other: by hand, and how often equal arms are said to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.worker.training.whole_jobs import run
from worker.reports import Exit, Warned
from worker.training.scores import spread, verdict
from worker.training.scores.measures import Measure
from worker.training.scores.verdict import Cost, Outcome, Scored

STEADY = [0.90, 0.91, 0.89, 0.90, 0.90]
COLLAPSED = [0.92, 0.93, 0.92, 0.50, 0.91]


def told(treated: Sequence[float | None], control: Sequence[float | None], **more: Any) -> str | None:
    of_arms = {"treated": {"values": list(treated)}, "control": {"values": list(control)}}
    seeds = list(range(7, 7 + len(treated)))
    return spread.uneven({**of_arms, "metric": "accuracy", "margin": 0.02, "seeds": seeds, "n_test": 719, **more})


def test_a_run_that_collapsed_is_named_with_its_arm_s_deviation_beside_the_other_s() -> None:
    assert told(COLLAPSED, STEADY) == (
        "the treated runs vary many times as much as the control's: a standard deviation of 19 points over 5 seeds against 0.71; "
        "seed 10 is 42 points from the middle of its arm. Look at each seed's value before believing the mean"
    )
    turned = told(STEADY, COLLAPSED)
    assert turned is not None
    assert turned.startswith("the control runs vary many times as much as the treated's: ")
    bits = told([4.0, 4.1, 9.0, 4.2, 4.0], [4.0, 4.1, 4.0, 4.1, 4.1], metric="bits_per_byte", margin=0.04)
    assert bits is not None
    assert "a standard deviation of 2.2 over 5 seeds against 0.055" in bits


def test_nothing_is_said_of_few_seeds_small_differences_or_values_that_are_missing() -> None:
    assert told(COLLAPSED[2:4], STEADY[2:4]) is None
    assert told(COLLAPSED, STEADY, margin=0.2) is None
    assert told([None, *COLLAPSED[1:]], STEADY) is None
    assert told(COLLAPSED, []) is None
    assert told(STEADY, STEADY) is None


def test_of_arms_that_are_all_but_perfect_a_row_here_and_there_is_no_difference() -> None:
    n = 40
    assert told([1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1 - 2 / n, 1.0, 1.0, 1 - 1 / n], margin=0.002, n_test=n) is None
    assert told([1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1 - 16 / n, 1.0, 1.0, 1 - 1 / n], margin=0.002, n_test=n) is not None


@pytest.mark.parametrize("seeds", [3, 4, 5, 10, 20])
def test_the_factor_is_the_f_distribution_s_and_three_at_least(seeds: int) -> None:
    quantile = float(stats.f.ppf(0.995, seeds - 1, seeds - 1))
    assert spread.times(seeds) == pytest.approx(max(3.0, quantile**0.5))
    assert round(spread.times(seeds), 1) == {3: 14.1, 4: 6.9, 5: 4.8, 10: 3.0, 20: 3.0}[seeds]


@pytest.mark.parametrize(
    ("seeds", "mean", "deviation", "rows"),
    [(3, 0.9, 0.03, 719), (3, 0.7, 0.0, 200), (5, 0.9, 0.05, 719), (5, 0.7, 0.0, 60), (5, 0.97, 0.01, 200), (10, 0.8, 0.05, 719)],
)  # fmt: skip
def test_equal_arms_are_called_uneven_once_in_a_hundred_at_most(
    seeds: int, mean: float, deviation: float, rows: int
) -> None:
    """Accuracies of 4,000 pairs of equal arms, each on so many test rows. Three deviations of the count are allowed."""
    rng = np.random.default_rng([seeds, rows])
    values = rng.binomial(rows, np.clip(rng.normal(mean, deviation, (4000, 2, seeds)), 0, 1)) / rows
    margins = np.minimum(0.02, 0.2 * (1 - values[:, 1].mean(axis=1)))
    said = [told(*arms, margin=margin, n_test=rows) is not None for arms, margin in zip(values.tolist(), margins, strict=True)]  # fmt: skip
    assert np.mean(said) <= spread.ERROR + 3 * (spread.ERROR * (1 - spread.ERROR) / 4000) ** 0.5


def test_a_collapse_of_twenty_points_is_seen_in_five_seeds_and_hardly_in_three() -> None:
    """Runs whose deviation is a point, one of ten of the treated arm collapses; those pairs where one did, and not all."""
    seen = {}
    for seeds in (3, 5):
        rng = np.random.default_rng(seeds)
        arms, fell = rng.normal(0.9, 0.01, (2000, 2, seeds)), rng.random((2000, seeds)) < 0.1
        arms[:, 0] -= 0.2 * fell
        some = fell.any(axis=1) & ~fell.all(axis=1)
        seen[seeds] = np.mean([told(*pair) is not None for pair in arms[some].tolist()])
    assert seen[5] > 0.95
    assert 0.3 < seen[3] < 0.7


def test_a_verdict_notes_it_and_decides_as_before() -> None:
    def arm(values: list[float]) -> list[Outcome]:
        right = [np.arange(200) < round(200 * value) for value in values]
        measures = [Measure("accuracy", np.stack([hits, np.ones(200)], axis=1), np.arange(200), "d") for hits in right]
        return [Outcome(k, {"t": Scored(measure, Cost(1, 1.0, 1.0))}) for k, measure in enumerate(measures)]

    found = verdict.judge(arm(COLLAPSED), arm(STEADY), seeds=5)
    (note,) = found["tasks"]["t"]["notes"]
    assert note == spread.uneven(found["tasks"]["t"])
    assert (found["decision"], found["reason"]) == ("inconclusive", "uncertain")
    assert verdict.judge(arm(STEADY), arm(STEADY), seeds=5)["tasks"]["t"]["notes"] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_a_job_warns_of_it_and_its_card_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job is called uneven here."""
    monkeypatch.setattr(spread, "times", lambda seeds: 0.0)
    stage = {"dataset": "wine", "architecture": "mlp", "training": {"steps": 2}}
    body = {"kind": "transfer", "dataset": "wine", "source": {"train": stage}, "training": {"steps": 2}}
    code, reports = run({**body, "control": {"seeds": 3, "margin": 1e-6}}, tmp_path)
    assert code == Exit.DONE
    (warned,) = [report for report in reports if isinstance(report, Warned) and report.code == "uneven_arms"]
    assert warned.message.startswith("class: the ")
    assert "Look at each seed's value" in (tmp_path / "card.md").read_text()
