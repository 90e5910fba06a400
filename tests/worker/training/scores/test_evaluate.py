from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn import metrics as sk

from app.spec.report.figures import Figures
from worker.training.scores.classification import calibration
from worker.training.scores.evaluate import evaluate, measure, metric_for

RNG = np.random.default_rng(0)
FIGURES: TypeAdapter[Any] = TypeAdapter(Figures)


def described(told: dict[str, Any]) -> bool:
    """Whether these are figures as the report describes them."""
    figures = FIGURES.validate_json(json.dumps(told, allow_nan=False))
    return bool(figures.model_dump(exclude_unset=True) == told)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


CODES = RNG.integers(0, 4, 300)
PROBABILITIES = softmax(RNG.normal(size=(300, 4)) + 1.5 * np.eye(4)[CODES])
CHOSEN = PROBABILITIES.argmax(axis=1)


def test_multiclass_figures_are_those_of_scikit_learn() -> None:
    told = evaluate("multiclass", PROBABILITIES, CODES, metric="accuracy", classes=["a", "b", "c", "d"])
    assert told["n"] == 300
    assert told["missing"] == 0
    assert told["undefined"] == {}
    assert told["accuracy"] == pytest.approx(sk.accuracy_score(CODES, CHOSEN))
    assert told["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(CODES, CHOSEN))
    assert told["log_loss"] == pytest.approx(sk.log_loss(CODES, PROBABILITIES))
    assert told["macro_f1"] == pytest.approx(sk.f1_score(CODES, CHOSEN, average="macro"))
    assert told["confusion"]["counts"] == sk.confusion_matrix(CODES, CHOSEN).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(CODES, CHOSEN)
    each = told["per_class"]
    assert [row["class"] for row in each] == ["a", "b", "c", "d"]
    assert [row["precision"] for row in each] == pytest.approx(precision)
    assert [row["recall"] for row in each] == pytest.approx(recall)
    assert [row["f1"] for row in each] == pytest.approx(f1)
    assert [row["support"] for row in each] == support.tolist()
    assert told["metric"] == {"name": "accuracy", "better": "higher", "value": told["accuracy"]}


def test_rows_without_a_label_count_as_missing_and_for_nothing_else() -> None:
    codes = np.where(np.arange(300) % 3 == 0, -1, CODES)
    some, whole = (
        evaluate("multiclass", PROBABILITIES[rows], codes[rows], metric="balanced_accuracy")
        for rows in (slice(None), codes >= 0)
    )
    assert some.pop("missing") == 100
    assert whole.pop("missing") == 0
    assert some == whole


@pytest.mark.parametrize("shape", [(300,), (300, 1)])
def test_a_binary_head_of_one_unit_is_read_as_two_classes(shape: tuple[int, ...]) -> None:
    codes = CODES % 2
    positive = np.clip(0.3 + 0.4 * codes + 0.2 * RNG.normal(size=300), 0.01, 0.99)
    told = evaluate("binary", positive.reshape(shape), codes, metric="accuracy", classes=["no", "yes"])
    assert told["accuracy"] == pytest.approx(sk.accuracy_score(codes, positive > 0.5))
    assert told["log_loss"] == pytest.approx(sk.log_loss(codes, positive))
    assert told["confusion"]["counts"] == sk.confusion_matrix(codes, positive > 0.5).tolist()
    assert told["per_class"][1]["f1"] == pytest.approx(sk.f1_score(codes, positive > 0.5))


def test_multilabel_figures_are_those_of_scikit_learn() -> None:
    truth = RNG.integers(0, 2, (200, 3)).astype(float)
    said = np.clip(0.35 * truth + 0.3 + 0.25 * RNG.normal(size=(200, 3)), 0.01, 0.99)
    told = evaluate("multilabel", said, truth, metric="micro_f1", classes=["x", "y", "z"])
    assert told["micro_f1"] == told["metric"]["value"] == pytest.approx(sk.f1_score(truth, said > 0.5, average="micro"))
    assert told["macro_f1"] == pytest.approx(sk.f1_score(truth, said > 0.5, average="macro"))
    assert told["exact_match"] == pytest.approx(sk.accuracy_score(truth, said > 0.5))
    assert told["accuracy"] == pytest.approx(1 - sk.hamming_loss(truth, said > 0.5))
    assert told["confusion"]["counts"] == sk.multilabel_confusion_matrix(truth, said > 0.5).tolist()
    assert told["log_loss"] == pytest.approx(np.mean([sk.log_loss(truth[:, i], said[:, i]) for i in range(3)]))


def test_where_no_label_is_present_or_claimed_micro_f1_is_null_as_a_figure_and_0_for_the_verdict() -> None:
    told = evaluate("multilabel", np.full((4, 2), 0.1), np.zeros((4, 2)), metric="micro_f1")
    assert told["micro_f1"] is None
    assert told["metric"]["value"] == 0.0


def test_of_a_row_with_some_labels_only_the_known_ones_count() -> None:
    truth = np.array([[1, math.nan, 0], [math.nan] * 3, [0, 1, math.nan]])
    said = np.array([[0.9, 0.9, 0.8], [0.9, 0.9, 0.9], [0.1, 0.2, 0.9]])
    told = evaluate("multilabel", said, truth, metric="micro_f1")
    assert (told["n"], told["missing"]) == (2, 1)
    assert told["accuracy"] == 0.5  # right, wrong | right, wrong
    assert told["micro_f1"] == told["metric"]["value"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert told["exact_match"] is None
    assert [row["support"] for row in told["per_class"]] == [1, 1, 0]
    assert told["confusion"]["counts"][1] == [[0, 0], [1, 0]]


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_figures_are_those_of_scikit_learn(outputs: int) -> None:
    truth = 3 + 2 * RNG.normal(size=(150, outputs))
    said = truth + RNG.normal(size=truth.shape)
    told = evaluate("regression", said, truth if outputs > 1 else truth[:, 0], metric="r2")
    assert [told["r2"], told["metric"]["value"]] == pytest.approx([sk.r2_score(truth, said)] * 2)
    assert told["rmse"] == pytest.approx(math.sqrt(sk.mean_squared_error(truth, said)))
    assert told["mae"] == pytest.approx(sk.mean_absolute_error(truth, said))
    assert measure("regression", said, truth, metric="rmse").value == pytest.approx(told["rmse"])


def test_r_squared_is_the_mean_of_its_row_terms() -> None:
    truth = np.array([1.0, 2.0, 4.0, math.nan])
    made = measure("regression", [1.0, 3.0, 3.0, 9.0], truth, metric="r2", units=[7, 8, 9, 10])
    terms = 1 - np.array([0.0, 1.0, 1.0]) / np.var([1.0, 2.0, 4.0])
    assert made.statistics[:, 0] == pytest.approx(terms)
    assert made.value == pytest.approx(terms.mean()) == pytest.approx(sk.r2_score([1, 2, 4], [1, 3, 3]))
    assert made.units.tolist() == [7, 8, 9]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_verdicts_value_is_the_reports(metric: str) -> None:
    made = measure("multiclass", PROBABILITIES, CODES, metric=metric)
    assert made.value == pytest.approx(evaluate("multiclass", PROBABILITIES, CODES, metric=metric)[metric])


def test_a_class_that_is_never_predicted_or_never_occurs_has_no_precision_or_recall() -> None:
    told = evaluate("multiclass", [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], [0, 0], metric="accuracy")
    assert [row["precision"] for row in told["per_class"]] == [1.0, 0.0, None]
    assert [row["recall"] for row in told["per_class"]] == [0.5, None, None]
    assert told["balanced_accuracy"] == 0.5


def test_certain_and_wrong_costs_a_finite_log_loss() -> None:
    assert evaluate("multiclass", [[1.0, 0.0]], [1], metric="accuracy")["log_loss"] == pytest.approx(36.0437, abs=1e-4)


# --- what has no value says why


@pytest.mark.parametrize(
    ("task_type", "predictions", "targets", "metric", "why"),
    [
        ("multiclass", [[0.5, 0.5]], [-1], "accuracy", "no row has a label"),
        ("multiclass", [[math.nan, 0.5]], [0], "accuracy", "predictions are not finite"),
        ("regression", [1.0, math.inf], [1.0, 2.0], "r2", "predictions are not finite"),
        ("regression", [1.0, 2.0], [3.0, 3.0], "r2", "the targets do not vary on these rows"),
        ("multilabel", [[0.1, 0.2]], [[math.nan, math.nan]], "micro_f1", "no row has a label"),
    ],
)
def test_an_undefined_metric_is_null_with_its_reason(
    task_type: Any, predictions: Any, targets: Any, metric: str, why: str
) -> None:
    told = evaluate(task_type, predictions, targets, metric=metric)
    assert told["metric"]["value"] is None
    assert told["undefined"]["metric"] == why
    assert described(told)
    made = measure(task_type, predictions, targets, metric=metric)
    assert made.undefined == why
    assert math.isnan(made.value)


def test_constant_targets_still_have_an_error() -> None:
    told = evaluate("regression", [1.0, 2.0], [3.0, 3.0], metric="r2")
    assert told["r2"] is None
    assert told["rmse"] == pytest.approx(math.sqrt(2.5))


@pytest.mark.parametrize(
    ("task_type", "predictions", "targets", "metric"),
    [
        ("multiclass", [[0.5, 0.5]], [2], "accuracy"),
        ("multiclass", [[0.5, 0.5]], [0, 1], "accuracy"),
        ("regression", [[1.0, 2.0]], [1.0], "r2"),
        ("multilabel", [[0.1, 0.2]], [[1.0]], "micro_f1"),
        ("regression", [1.0], [1.0], "accuracy"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(task_type: Any, predictions: Any, targets: Any, metric: str) -> None:
    with pytest.raises(ValueError, match=r"do not fit targets|is no metric of a"):
        measure(task_type, predictions, targets, metric=metric)


def test_class_names_must_be_as_many_as_outputs() -> None:
    with pytest.raises(ValueError, match="expected 2 names, one an output, received 3"):
        evaluate("multiclass", [[0.5, 0.5]], [0], metric="accuracy", classes=["a", "b", "c"])


# --- the verdict's metric


@pytest.mark.parametrize(
    ("task_type", "counts", "metric"),
    [
        ("binary", [50, 50], "accuracy"),
        ("binary", [91, 9], "balanced_accuracy"),
        ("binary", [90, 10], "accuracy"),
        ("multiclass", [46, 46, 8], "balanced_accuracy"),
        ("multiclass", [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], "accuracy"),  # digits: 9.7 % the rarest
        ("multiclass", [200] * 9 + [60], "balanced_accuracy"),
        ("multiclass", [50, 50, 0], "accuracy"),
        ("multiclass", None, "accuracy"),
        ("multilabel", [1, 99], "micro_f1"),
        ("regression", None, "r2"),
    ],
)
def test_accuracy_is_balanced_where_a_class_is_rare(task_type: Any, counts: list[int] | None, metric: str) -> None:
    assert metric_for(task_type, counts) == metric


# --- calibration


def test_calibration_error_is_the_weighted_gap_of_its_bins() -> None:
    told = calibration([0.05, 0.15, 0.15, 0.95, 1.0], [0, 0, 1, 1, 1], bins=10)
    assert [(b["lower"], b["n"]) for b in told["bins"]] == [(0.0, 1), (0.1, 2), (0.9, 2)]
    assert told["bins"][1]["accuracy"] == 0.5
    assert told["ece"] == pytest.approx((1 * 0.05 + 2 * 0.35 + 2 * 0.025) / 5)


def test_bins_are_open_below_and_closed_above() -> None:
    told = calibration([0.0, 0.5, 0.5000001], [0, 1, 1], bins=2)
    assert [b["n"] for b in told["bins"]] == [2, 1]


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    assert calibration([1.0] * 4, [1] * 4)["ece"] == 0
    assert calibration([1.0] * 4, [0] * 4)["ece"] == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.integers(2, 5))
def test_calibration_agrees_with_the_plain_loop_over_bins(seed: int, n: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    p, hit = rng.random(n), rng.random(n) < 0.5
    naive = 0.0
    for i in range(bins):
        inside = (p > i / bins) & (p <= (i + 1) / bins)
        if inside.any():
            naive += inside.mean() * abs(p[inside].mean() - hit[inside].mean())
    assert calibration(p, hit, bins)["ece"] == pytest.approx(naive)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**31 - 1), st.sampled_from(["binary", "multiclass", "multilabel", "regression"]), st.integers(1, 30)
)
def test_every_report_is_finite_or_null(seed: int, task_type: Any, n: int) -> None:
    rng = np.random.default_rng(seed)
    metric = metric_for(task_type)
    if task_type == "multiclass":
        predictions, targets = softmax(rng.normal(size=(n, 3))), rng.integers(-1, 3, n).astype(float)
    elif task_type == "binary":
        predictions, targets = rng.random(n), rng.integers(-1, 2, n).astype(float)
    else:
        predictions = rng.random((n, 2))
        targets = rng.choice([0.0, 1.0, math.nan], (n, 2))
    assert described(evaluate(task_type, predictions, targets, metric=metric))
