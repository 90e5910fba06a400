from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.datasets import load_wine

from app.spec import tasks
from app.spec.report.verdict import Verdict
from worker.training.scores import verdict
from worker.training.scores.evaluate import agreement, measure
from worker.training.scores.measures import Measure
from worker.training.scores.verdict import Cost, Outcome, Scored

N = 200


def judge(treated: list[Outcome], control: list[Outcome], **options: Any) -> dict[str, Any]:
    """The verdict, which is always one that the report describes."""
    told = verdict.judge(treated, control, **options)
    assert Verdict.model_validate_json(json.dumps(told, allow_nan=False)).model_dump(exclude_unset=True) == told
    return told


def mean_measure(terms: Any, metric: str = "accuracy", dataset: str = "d", units: Any = None) -> Measure:
    terms = np.asarray(terms, dtype=float)
    unit = np.arange(len(terms)) if units is None else np.asarray(units)
    return Measure(metric, np.stack([terms, np.ones_like(terms)], axis=1), unit, dataset)


def outcome(seed: int, accuracy: float, *, task: str = "digit", n: int = N, cost: Cost | None = None) -> Outcome:
    """A model that is right on the first rows: two of them differ on exactly the rows between their accuracies."""
    right = np.arange(n) < round(accuracy * n)
    return Outcome(seed, {task: Scored(mean_measure(right), cost or Cost(300, 1e-3, 1.0))})


def arms(treated: list[float], control: list[float], **options: Any) -> tuple[list[Outcome], list[Outcome]]:
    ours, theirs = ([outcome(k, accuracy, **options) for k, accuracy in enumerate(arm)] for arm in (treated, control))
    return ours, theirs


# --- margins and the decision


@pytest.mark.parametrize(
    ("metric", "control", "margin"),
    [
        ("accuracy", 0.789, 0.02),
        ("accuracy", 0.945, 0.011),
        ("accuracy", 0.995, 0.001),
        ("accuracy", 1.0, 0.0),
        ("balanced_accuracy", 0.95, 0.01),
        ("micro_f1", 0.95, 0.01),
        ("r2", -3.0, 0.02),
        ("r2", 0.98, 0.004),
        ("delta_m", 1.0, 2.0),
    ],
)
def test_the_margin_is_2_points_or_a_fifth_of_what_the_control_leaves(
    metric: str, control: float, margin: float
) -> None:
    assert verdict.margin_of(metric, control) == pytest.approx(margin)
    assert verdict.margin_of(metric, control, 0.07) == 0.07


def test_rmse_has_no_margin_of_its_own() -> None:
    with pytest.raises(ValueError, match="rmse has no margin of its own"):
        verdict.margin_of("rmse", 2.0)


SOUND: dict[str, Any] = {
    "seeds": 5, "n_units": 720, "failed": False, "overlap": "none", "lo": 0.03, "hi": 0.05, "margin": 0.02,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "decision", "reason"),
    [
        ({}, "helped", None),
        ({"lo": -0.05, "hi": -0.03}, "hurt", None),
        ({"lo": -0.01, "hi": 0.019}, "no_effect", None),
        ({"lo": 0.005, "hi": 0.019}, "no_effect", None),  # significant, but smaller than the margin
        ({"lo": -0.019, "hi": -0.005}, "no_effect", None),
        ({"lo": 0.001, "hi": 0.02}, "helped", None),  # hi must lie *below* the margin
        ({"lo": -0.02, "hi": -0.001}, "hurt", None),
        ({"lo": 0.0, "hi": 0.05}, "inconclusive", "uncertain"),  # lo must lie *above* 0
        ({"lo": -0.05, "hi": 0.0}, "inconclusive", "uncertain"),
        ({"lo": -0.01, "hi": 0.05}, "inconclusive", "uncertain"),
        ({"lo": 0.0, "hi": 0.0, "margin": 0.0}, "inconclusive", "uncertain"),
        ({"lo": math.nan, "hi": math.nan}, "inconclusive", "uncertain"),
        ({"overlap": "unknown"}, "helped", None),
        ({"overlap": "seen"}, "inconclusive", "overlap"),
        ({"overlap": "seen", "failed": True}, "inconclusive", "run_failed"),
        ({"failed": True, "n_units": 29}, "inconclusive", "few_test_rows"),
        ({"n_units": 30}, "helped", None),
        ({"n_units": 29, "seeds": 2}, "inconclusive", "few_seeds"),
        ({"seeds": 3}, "helped", None),
        ({"seeds": 1, "lo": 0.0, "hi": 0.0}, "inconclusive", "few_seeds"),
        ({"seeds": 0, "failed": True, "overlap": "seen"}, "not_measured", None),
    ],
)
def test_the_first_rule_that_holds_decides(change: dict[str, Any], decision: str, reason: str | None) -> None:
    assert verdict.decide(**{**SOUND, **change}) == (decision, reason)


@given(st.floats(-0.2, 0.2), st.floats(0, 0.2), st.floats(0.001, 0.1))
def test_a_decision_turns_round_with_the_arms(lo: float, width: float, margin: float) -> None:
    there, reason = verdict.decide(**{**SOUND, "lo": lo, "hi": lo + width, "margin": margin})
    back, _ = verdict.decide(**{**SOUND, "lo": -(lo + width), "hi": -lo, "margin": margin})
    assert back == {"helped": "hurt", "hurt": "helped"}.get(there, there)
    assert (reason is None) == (there != "inconclusive")


def wine_networks(count: int, labelled: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` networks (13-8-3, full-batch gradient descent), each on its own rows: (count, 60, 3) logits, the 60 labels."""
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    test, pool = order[:60], order[60:]
    x = (x - x[pool].mean(axis=0)) / x[pool].std(axis=0)
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(pool)[:labelled] for _ in range(count)])
    inputs, truth = x[rows], np.eye(3)[y[rows]]
    w, v = rng.normal(size=(count, 13, 8)) / np.sqrt(13), rng.normal(size=(count, 8, 3)) / np.sqrt(8)
    for _ in range(40):
        hidden = np.maximum(inputs @ w, 0)
        slope = (softmax(hidden @ v, axis=2) - truth) / labelled
        back = (slope @ v.transpose(0, 2, 1)) * (hidden > 0)
        v -= 0.5 * hidden.transpose(0, 2, 1) @ slope
        w -= 0.5 * inputs.transpose(0, 2, 1) @ back
    return np.maximum(x[test] @ w, 0) @ v, y[test]


def wine_arm(logits: np.ndarray, truth: np.ndarray) -> list[Outcome]:
    made = [measure("multiclass", one, truth, metric="accuracy") for one in logits]
    return [Outcome(k, {"wine": Scored(one, Cost(40, 0.5, 0.0))}) for k, one in enumerate(made)]


def test_200_verdicts_between_equal_arms_rarely_find_a_difference_and_unequal_arms_never_the_wrong_one() -> None:
    """Real rows and real training. Of 200 nulls at 2.5 % a side, more than 11 on one side is a 1 % event."""
    few, truth = wine_networks(2000, labelled=9, seed=1)
    many, _ = wine_networks(250, labelled=60, seed=2)
    pairs = few.reshape(200, 2, 5, 60, 3)
    null = Counter(judge(wine_arm(a, truth), wine_arm(b, truth), seeds=5)["decision"] for a, b in pairs)
    assert null["helped"] <= 11
    assert null["hurt"] <= 11
    assert null["inconclusive"] + null["no_effect"] >= 180
    better = zip(many.reshape(50, 5, 60, 3), pairs[:, 0], strict=False)
    found = Counter(judge(wine_arm(a, truth), wine_arm(b, truth), seeds=5)["decision"] for a, b in better)
    assert found["hurt"] == 0
    assert found["helped"] >= 10  # 98 % against 86 ± 11 %: five seeds do not always suffice


# --- judge


def test_a_clear_gain_on_every_seed_is_helped_and_the_report_has_every_key() -> None:
    ours, theirs = arms([0.84, 0.86, 0.85, 0.83, 0.85], [0.74, 0.75, 0.76, 0.75, 0.75])
    told = judge(ours, theirs, seeds=5, arm="same cnn from scratch", besides={"source_steps": 300, "source_rows": 4000})
    assert (told["decision"], told["reason"], told["on"]) == ("helped", None, "digit")
    task = told["tasks"]["digit"]
    assert set(task) == {
        "decision", "reason", "metric", "better", "treated", "control", "delta", "ci95", "interval", "alpha", "margin",
        "n_seeds", "seeds", "n_test", "test_unit", "variance", "budget", "overlap", "notes", "sentence",
    }  # fmt: skip
    assert task["control"]["arm"] == "same cnn from scratch"
    assert task["delta"]["values"] == pytest.approx([0.10, 0.11, 0.09, 0.08, 0.10])
    assert task["ci95"] == task["interval"]
    assert task["ci95"][0] < task["delta"]["mean"] < task["ci95"][1]
    assert (task["alpha"], task["n_seeds"], task["seeds"], task["n_test"]) == (0.05, 5, [0, 1, 2, 3, 4], N)
    assert task["budget"]["treated"] == {
        "steps": 300, "learning_rate": 1e-3, "best_epoch": [None] * 5, "device_seconds": 5.0,
    }  # fmt: skip
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_swapped_arms_give_the_opposite_verdict() -> None:
    ours, theirs = arms([0.84, 0.86, 0.85, 0.83, 0.85], [0.74, 0.75, 0.76, 0.75, 0.75])
    there, back = judge(ours, theirs, seeds=5, margin=0.02), judge(theirs, ours, seeds=5, margin=0.02)
    assert (there["decision"], back["decision"]) == ("helped", "hurt")
    assert back["interval"] == pytest.approx([-there["interval"][1], -there["interval"][0]])


def test_pairs_are_matched_by_seed_not_by_order() -> None:
    ours, theirs = arms([0.80, 0.90, 0.85], [0.70, 0.80, 0.75])
    told = judge(ours, list(reversed(theirs)), seeds=3)
    assert told["tasks"]["digit"]["delta"]["values"] == pytest.approx([0.1, 0.1, 0.1])


def test_arms_measured_on_other_rows_are_refused() -> None:
    ours, _ = arms([0.8] * 3, [0.7] * 3)
    _, theirs = arms([0.8] * 3, [0.7] * 3, n=N - 1)
    with pytest.raises(ValueError, match="same test rows: accuracy on 200 rows, then accuracy on 199"):
        judge(ours, theirs, seeds=3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"seeds": 2}, "few_seeds"),
        ({"seeds": 3, "overlap": "seen"}, "overlap"),
        ({"seeds": 3, "n": 29}, "few_test_rows"),
    ],
)
def test_what_cannot_be_said_is_inconclusive_with_its_reason(options: dict[str, Any], reason: str) -> None:
    seeds, n = options.pop("seeds"), options.pop("n", N)
    ours, theirs = arms([0.9] * seeds, [0.5] * seeds, n=n)
    told = judge(ours, theirs, seeds=seeds, **options)
    assert (told["decision"], told["reason"]) == ("inconclusive", reason)
    assert told["sentence"].startswith("inconclusive: accuracy 0.")


@pytest.mark.parametrize("broken", ["failed", "absent", "not finite"])
def test_a_run_without_a_result_makes_it_run_failed_and_the_rest_is_still_shown(broken: str) -> None:
    ours, theirs = arms([0.9] * 5, [0.5] * 5)
    if broken == "failed":
        theirs[3] = Outcome(3, failed="loss became nan")
    elif broken == "absent":
        del theirs[3]
    else:
        nothing = Measure("accuracy", np.zeros((N, 2)), np.arange(N), "d", "predictions are not finite")
        theirs[3] = Outcome(3, {"digit": Scored(nothing, Cost(300, 1e-3, 1.0))})
    told = judge(ours, theirs, seeds=5)
    assert (told["decision"], told["reason"], told["n_seeds"]) == ("inconclusive", "run_failed", 4)
    assert told["tasks"]["digit"]["seeds"] == [0, 1, 2, 4]
    assert any(note.startswith("seed 3: ") for note in told["notes"])
    json.dumps(told, allow_nan=False)


def test_all_runs_failed_is_still_a_report() -> None:
    failed = [Outcome(k, failed="out of memory") for k in range(3)]
    told = judge(failed, failed, seeds=3)
    assert (told["decision"], told["reason"], told["tasks"]) == ("inconclusive", "run_failed", {})


def test_no_control_is_not_measured_and_shows_the_treated_value() -> None:
    told = judge([outcome(0, 0.84)], [], seeds=0)
    assert (told["decision"], told["reason"]) == ("not_measured", None)
    assert told["tasks"]["digit"]["treated"]["values"] == [0.84]
    assert told["tasks"]["digit"]["control"]["values"] == []
    assert told["tasks"]["digit"]["margin"] is None
    assert told["sentence"] == "not_measured: accuracy 0.840; no control was trained; control.seeds 5 gives a verdict."


def test_a_best_epoch_that_is_the_last_and_unequal_steps_are_noted() -> None:
    ours, theirs = arms([0.9] * 3, [0.5] * 3, cost=Cost(300, 1e-3, 1.0, best_epoch=10, epochs=10))
    theirs = [outcome(k, 0.5, cost=Cost(200, 1e-3, 1.0, best_epoch=4, epochs=10)) for k in range(3)]
    notes = judge(ours, theirs, seeds=3)["tasks"]["digit"]["notes"]
    assert "still improving at the end of the budget: treated in 3 of 3 runs" in notes
    assert "unequal steps on the target: treated [300], control [200]" in notes


def test_what_the_verdict_is_conditional_on_and_an_unknown_overlap_are_noted() -> None:
    told = judge(*arms([0.9] * 3, [0.5] * 3), seeds=3, conditional_on="source", overlap="unknown")
    assert told["decision"] == "helped"
    assert any("the source was trained once" in note for note in told["tasks"]["digit"]["notes"])
    assert any("overlap: unknown" in note for note in told["notes"])


# --- several tasks


def two_tasks(seed: int, accuracy: float, error: float, shift: float = 0.0) -> Outcome:
    rng = np.random.default_rng([seed, int(1000 * accuracy), int(1000 * error)])
    squares = (error * rng.choice([-1.0, 1.0], N) * (1 + 0.1 * rng.standard_normal(N))) ** 2
    right = rng.random(N) < accuracy + shift
    return Outcome(
        seed,
        {
            "digit": Scored(mean_measure(right), Cost(300, 1e-3, 1.0)),
            "age": Scored(mean_measure(1 - squares / 9, "r2"), Cost(300, 1e-3, 1.0), mean_measure(squares, "rmse")),
        },
    )


def test_delta_m_is_that_of_the_worked_example() -> None:
    """Accuracy .80 → .84 and RMSE 2.0 → 2.2: (+5 − 10)/2."""
    treated, control = np.array([[0.84], [2.2]]), np.array([[0.80], [2.0]])
    assert verdict.delta_m(treated, control, [1, -1]) == pytest.approx([-2.5])


def test_delta_m_divides_by_the_controls_mean_over_seeds() -> None:
    treated, control = np.array([[0.5, 0.7]]), np.array([[0.4, 0.6]])
    assert verdict.delta_m(treated, control, [1]) == pytest.approx([20, 20])


def test_several_tasks_are_judged_on_delta_m_and_each_at_its_share_of_alpha() -> None:
    ours = [two_tasks(k, 0.90, 1.0) for k in range(5)]
    theirs = [two_tasks(k + 50, 0.70, 2.0) for k in range(5)]
    theirs = [Outcome(k, twin.tasks) for k, twin in enumerate(theirs)]
    told = judge(ours, theirs, seeds=5)
    assert (told["on"], told["decision"], told["alpha"], told["margin"]) == ("delta_m", "helped", 0.05, 2.0)
    assert [told["tasks"][name]["alpha"] for name in ("digit", "age")] == [0.025, 0.025]
    digit = told["tasks"]["digit"]
    assert digit["interval"][0] < digit["ci95"][0]
    assert digit["interval"][1] > digit["ci95"][1]
    assert "positive is better" in told["delta_m"]["sign_rule"]
    parts = told["delta_m"]["tasks"]
    assert parts["age"]["metric"] == "rmse"
    assert parts["age"]["percent"] == pytest.approx(50, abs=2)  # RMSE 2 → 1: lower is better, so the sign turns
    assert told["delta_m"]["delta"]["mean"] == pytest.approx((parts["age"]["percent"] + parts["digit"]["percent"]) / 2)
    assert told["sentence"].startswith("helped: Δm over 2 tasks (positive is better) +")
    json.dumps(told, allow_nan=False)


def test_the_primary_task_decides_at_the_whole_alpha() -> None:
    ours = [two_tasks(k, 0.90, 2.0) for k in range(5)]
    theirs = [Outcome(k, two_tasks(k + 50, 0.70, 2.0).tasks) for k in range(5)]
    told = judge(ours, theirs, seeds=5, primary="digit")
    assert (told["on"], told["decision"], told["alpha"]) == ("digit", "helped", 0.05)
    assert told["interval"] == told["tasks"]["digit"]["ci95"]
    with pytest.raises(ValueError, match=r"expected one of digit, age or delta_m"):
        judge(ours, theirs, seeds=5, primary="colour")


def test_a_margin_belongs_to_the_tasks_unless_delta_m_was_asked_for() -> None:
    ours = [two_tasks(k, 0.90, 2.0) for k in range(3)]
    theirs = [Outcome(k, two_tasks(k + 50, 0.70, 2.0).tasks) for k in range(3)]
    plain = judge(ours, theirs, seeds=3, margin=0.05)
    assert (plain["margin"], plain["tasks"]["digit"]["margin"]) == (2.0, 0.05)
    asked = judge(ours, theirs, seeds=3, margin=3.0, primary="delta_m")
    assert (asked["margin"], asked["tasks"]["digit"]["margin"]) == (3.0, 0.02)


def test_equal_tasks_on_one_data_set_make_delta_m_no_surer_than_one_of_them() -> None:
    """Resampled together, a doubled task is the same evidence; on two data sets it would be twice as much."""
    rng = np.random.default_rng(9)
    right = [(rng.random(N) < 0.9, rng.random(N) < 0.7) for _ in range(3)]

    def v_test(datasets: tuple[str, str]) -> float:
        def arm(which: int) -> list[Outcome]:
            return [
                Outcome(k, {f"t{i}": Scored(mean_measure(pair[which], dataset=name), Cost(1, 1e-3, 1.0))
                            for i, name in enumerate(datasets)})
                for k, pair in enumerate(right)
            ]  # fmt: skip

        found = judge(arm(0), arm(1), seeds=3)["delta_m"]["variance"]["test"]
        assert isinstance(found, float)
        return found

    assert v_test(("a", "b")) == pytest.approx(v_test(("a", "a")) / 2, rel=0.15)


# --- distillation's own figures


def test_gap_recovered_is_a_ratio_of_means_over_seeds() -> None:
    rows = np.arange(N)
    student = [mean_measure(rows < 0.85 * N), mean_measure(rows < 0.89 * N)]
    alone = [mean_measure(rows < 0.78 * N), mean_measure(rows < 0.80 * N)]
    found = verdict.gap_recovered(student * 2, alone * 2, mean_measure(rows < 0.95 * N))
    assert found["value"] == pytest.approx((0.87 - 0.79) / (0.95 - 0.79))
    assert found["reason"] is None


@pytest.mark.parametrize(("teacher", "seeds"), [(0.80, 4), (0.70, 4), (0.95, 1)])
def test_gap_recovered_is_null_unless_the_teacher_is_clearly_better(teacher: float, seeds: int) -> None:
    rng = np.random.default_rng(10)
    alone = [mean_measure(rng.random(N) < 0.79) for _ in range(seeds)]
    found = verdict.gap_recovered(alone, alone, mean_measure(rng.random(N) < teacher))
    assert found["value"] is None
    assert found["reason"]


def test_agreement_counts_equal_classes() -> None:
    student = [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1], [0.2, 0.3, 0.5]]
    teacher = [[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.0, 1.0, 0.0], [0.1, 0.1, 0.8]]
    assert agreement("multiclass", student, teacher) == 0.75
    assert agreement("binary", [[0.7], [0.2]], [[0.6], [0.9]]) == 0.5
    assert agreement("multilabel", [[0.7, 0.1], [0.2, 0.9]], [[0.6, 0.9], [0.3, 0.8]]) == 0.75
    assert agreement("regression", [[1.0]], [[1.0]]) is None


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 6),
    st.integers(5, 60),
    st.sampled_from(sorted(set(tasks.metrics()) - {"rmse"})),
)
def test_every_outcome_makes_a_report_that_json_can_hold(seed: int, seeds: int, n: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    own = np.eye(3)[np.arange(n) % 3]

    def statistics() -> Any:
        drawn = rng.integers(0, 2, (n, 3)).astype(float)
        counted = np.stack([column for part in drawn.T for column in (part, np.ones(n))], axis=1)
        of_boxes = np.column_stack([np.ones((n, 2)), np.zeros(n), np.ones(n), drawn[:, :2]])  # a class, in one bin
        of_metric = {
            "balanced_accuracy": np.hstack([own * drawn, own]),
            "micro_f1": drawn,
            "span_f1": drawn,
            "roc_auc": counted,
            "map50": of_boxes,
        }
        return of_metric.get(metric, np.stack([drawn[:, 0], np.ones(n)], axis=1))

    def arm() -> list[Outcome]:
        return [
            Outcome(k, {"t": Scored(Measure(metric, statistics(), np.arange(n)), Cost(1, 1, 1))})
            for k in range(max(seeds, 1))
        ]

    told = judge(arm(), arm() if seeds else [], seeds=seeds)
    json.dumps(told, allow_nan=False)
    assert told["sentence"].startswith(f"{told['decision']}: ")
    assert (told["reason"] is None) == (told["decision"] != "inconclusive")
