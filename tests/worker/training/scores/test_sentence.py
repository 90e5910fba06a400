from __future__ import annotations

from typing import Any

import pytest

from worker.training.scores.sentence import sentence

TOLD: dict[str, Any] = {
    "decision": "helped",
    "reason": None,
    "metric": "accuracy",
    "treated": {"mean": 0.842},
    "control": {"arm": "same CNN from scratch", "mean": 0.789},
    "delta": {"mean": 0.053},
    "ci95": [0.024, 0.082],
    "interval": [0.024, 0.082],
    "alpha": 0.05,
    "margin": 0.02,
    "n_seeds": 5,
    "n_test": 719,
    "test_unit": "row",
    "variance": {"seeds": 8e-5, "test": 2e-5, "df": 6.0},
    "budget": {
        "treated": {"steps": 300},
        "control": {"steps": 300},
        "besides": {"source_steps": 300, "source_rows": 4000},
    },
    "notes": [],
}
UNCERTAIN = {**TOLD, "decision": "inconclusive", "reason": "uncertain", "delta": {"mean": 0.017}}


def test_a_gain_is_told_with_its_interval_and_what_it_cost() -> None:
    assert sentence(TOLD) == (
        "helped: accuracy 0.842 against 0.789 (same CNN from scratch), +5.3 points, 95 % interval +2.4 to +8.2; "
        "5 paired seeds, 719 test rows, margin 2.0; 300 target steps each, source 300 steps on 4,000 rows besides."
    )


def test_a_teacher_s_labels_are_told_beside_its_rows() -> None:
    def besides(**counts: int | None) -> str:
        return sentence({**TOLD, "budget": {**TOLD["budget"], "besides": counts}}).split("each, ")[1]

    taught = besides(teacher_steps=300, teacher_rows=900, teacher_labels=1000, unlabelled_rows=978)
    assert taught == "teacher 300 steps on 900 rows with 1,000 labels and 978 unlabelled rows besides."
    assert besides(teacher_steps=300, teacher_rows=None, teacher_labels=None) == "teacher 300 steps besides."


def test_uncertainty_names_what_would_narrow_it() -> None:
    wide = {**UNCERTAIN, "ci95": [-0.006, 0.04], "interval": [-0.006, 0.04]}
    assert sentence(wide) == (
        "inconclusive: +1.7 points, −0.6 to +4.0: neither 0 nor 2.0 points can be excluded; "
        "80 % of the uncertainty is seeds: try control.seeds 10."
    )
    rows = sentence({**wide, "variance": {"seeds": 1e-5, "test": 9e-5, "df": 9.0}})
    assert rows.endswith("90 % of the uncertainty is test rows: more test rows would narrow it.")
    assert "try control.seeds 20" in sentence({**wide, "n_seeds": 12})
    assert "is the most that a job runs" in sentence({**wide, "n_seeds": 20})


@pytest.mark.parametrize(
    ("interval", "said"),
    [([-0.03, 0.01], "neither 0 nor −2.0 points"), ([-0.03, 0.03], "neither 0 nor ±2.0 points")],
)
def test_uncertainty_names_the_side_that_is_open(interval: list[float], said: str) -> None:
    assert said in sentence({**UNCERTAIN, "ci95": interval, "interval": interval})


def test_a_perfect_control_is_said_to_leave_no_room() -> None:
    perfect = {**UNCERTAIN, "margin": 0.0, "control": {"arm": "same CNN from scratch", "mean": 1.0}}
    level = {"treated": {"mean": 1.0}, "delta": {"mean": 0.0}, "interval": [0.0, 0.0], "ci95": [0.0, 0.0]}
    nothing = {"variance": {"seeds": 0.0, "test": 0.0, "df": None}}
    assert sentence({**perfect, **level, **nothing}) == (
        "inconclusive: accuracy 1.000 against 1.000 (same CNN from scratch), +0.0 points: the control makes no mistake on "
        "these test rows, which leaves no room for a gain; a harder task, fewer labels or a shorter budget might show a "
        "difference; 5 paired seeds, 719 test rows."
    )
    worse = {"treated": {"mean": 0.99}, "delta": {"mean": -0.01}, "interval": [-0.025, 0.005], "ci95": [-0.025, 0.005]}
    told = sentence({**perfect, **worse})
    assert "−1.0 points, −2.5 to +0.5: the control makes no mistake" in told
    assert "a loss can be neither shown nor excluded; 5 paired seeds" in told


def test_a_margin_near_the_ceiling_is_not_told_as_0() -> None:
    assert "neither 0 nor 0.04 points can be excluded" in sentence(
        {**UNCERTAIN, "margin": 0.0004, "interval": [-0.0001, 0.0009], "ci95": [-0.0001, 0.0009]}
    )


@pytest.mark.parametrize(
    ("interval", "margin", "said"),
    [
        ([0.0004, 0.111], 0.02, "interval +0.04 to +11.10; 5 paired seeds, 719 test rows, margin 2.00"),
        ([-0.111, -0.0004], 0.02, "interval −11.10 to −0.04;"),
        ([0.0204, 0.111], 0.02, "interval +2.04 to +11.10; 5 paired seeds, 719 test rows, margin 2.00"),
        ([0.000041, 0.111], 0.02, "interval +0.004 to +11.100;"),
        ([0.02, 0.111], 0.02, "interval +2.0 to +11.1; 5 paired seeds, 719 test rows, margin 2.0"),
        ([0.02 + 1e-12, 0.111], 0.02, "interval +2.0 to +11.1;"),
        ([0.0, 0.111], 0.0004, "interval +0.00 to +11.10; 5 paired seeds, 719 test rows, margin 0.04"),
    ],
)
def test_an_interval_shows_on_which_side_of_0_and_of_the_margin_it_ends(
    interval: list[float], margin: float, said: str
) -> None:
    assert said in sentence({**TOLD, "interval": interval, "margin": margin})


def test_no_effect_says_that_the_interval_is_inside_the_margin() -> None:
    none = {**TOLD, "decision": "no_effect", "delta": {"mean": -0.0001}, "interval": [-0.009, 0.008]}
    assert "+0.0 points, 95 % interval −0.9 to +0.8, inside the margin; 5 paired seeds" in sentence(none)


def test_failed_runs_are_named_and_many_of_them_counted() -> None:
    failed = {**TOLD, "decision": "inconclusive", "reason": "run_failed"}
    notes = [f"seed {seed}: the control run failed (the loss was inf at step 4 of 30)" for seed in range(4)]
    one = sentence({**failed, "notes": [notes[1], "the source was trained once: the verdict is conditional on it"]})
    assert f"+5.3 points; not every pair was completed: {notes[1]}; 300 target steps each" in one
    all_of_them = sentence({**failed, "delta": {"mean": None}, "notes": notes})
    assert all_of_them == f"inconclusive: not every pair was completed: {notes[0]}; {notes[1]}; 2 more."
