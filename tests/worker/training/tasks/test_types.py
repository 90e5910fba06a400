"""The learning halves of the task types, against values that were worked out by hand or in plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from app.spec.models import TaskSpec
from tests.app.columns import LABELS, THREE, TWO, VECTOR
from tests.app.data.memory import most_allocated
from worker.training.scores import evaluate
from worker.training.tasks import heads
from worker.training.tasks.heads import Task

BINARY, MULTICLASS, MULTILABEL, NUMBERS = (
    heads.task("t", TaskSpec(), column) for column in (TWO, THREE, LABELS, VECTOR)
)
EMBEDDING = heads.task("t", TaskSpec(type="embedding", units=4), THREE)
NAN = math.nan


def test_missing_codes_are_zero_under_a_mask() -> None:
    codes = np.array([1, -1, 0], np.int32)
    targets = heads.targets(BINARY, codes)
    assert targets["t"].tolist() == [[1.0], [0.0], [0.0]]
    assert targets["t"].dtype == np.float32
    assert targets["t/labelled"].tolist() == [1.0, 0.0, 1.0]
    targets = heads.targets(MULTICLASS, codes)
    assert targets["t"].tolist() == [1, 0, 0]
    assert targets["t"].dtype == np.int32


def test_missing_labels_of_a_row_are_masked_one_by_one() -> None:
    targets = heads.targets(MULTILABEL, np.array([[1, NAN, 0, 1], [NAN] * 4], np.float32))
    assert targets["t"].tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]
    assert targets["t/labelled"].tolist() == [[1, 0, 1, 1], [0, 0, 0, 0]]


def test_numbers_are_standardised_by_the_training_rows_and_a_constant_one_is_only_shifted() -> None:
    values = np.array([[[1, 5, 0], [0, 0, 2]], [[3, 5, NAN], [4, 0, 2]]], np.float32)
    task = heads.fit_scale(NUMBERS, values)
    assert task.mean == (2.0, 5.0, 0.0, 2.0, 0.0, 2.0)
    assert task.std == (1.0, 1.0, 1.0, 2.0, 1.0, 1.0)
    targets = heads.targets(task, values)
    assert targets["t"].tolist() == [[-1, 0, 0, -1, 0, 0], [1, 0, 0, 1, 0, 0]]
    assert targets["t/labelled"].tolist() == [[1] * 6, [1, 1, 0, 1, 1, 1]]
    for other, stored in ((BINARY, np.array([1])), (MULTICLASS, np.array([2])), (MULTILABEL, np.ones((1, 4)))):
        assert heads.fit_scale(other, stored) is other


def test_answers_are_probabilities_or_numbers_in_the_users_units() -> None:
    half = np.log(3.0)  # odds of 3 to 1
    assert heads.answers(BINARY, np.array([[half]])) == pytest.approx(np.array([[0.75]]))
    assert heads.answers(MULTICLASS, np.array([[half, 0.0, 0.0]])) == pytest.approx(np.array([[0.6, 0.2, 0.2]]))
    assert heads.answers(MULTILABEL, np.array([[half, 0, -half, 0]])) == pytest.approx(
        np.array([[0.75, 0.5, 0.25, 0.5]])
    )
    task = heads.fit_scale(NUMBERS, np.array([[[0.0] * 3] * 2, [[4.0] * 3] * 2]))
    assert heads.answers(task, np.full((1, 6), 1.5)).tolist() == [[5.0] * 6]


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL, NUMBERS, EMBEDDING], ids=lambda task: task.type)
@pytest.mark.parametrize("rows", [0, 1, 30, 61])
def test_answers_block_by_block_are_those_of_all_rows_at_once(
    task: Task, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "BLOCK_VALUES", 10 * task.units)
    task = heads.fit_scale(task, np.random.default_rng(1).normal(3, 2, (9, 6))) if task is NUMBERS else task
    logits = np.random.default_rng(0).normal(0, 20, (rows, task.units)).astype(np.float32)
    answers, expected = heads.answers(task, logits), heads.learning(task.type).answers(task, logits.astype(np.float64))
    assert answers.dtype == expected.dtype == np.float64
    assert np.array_equal(answers, expected)


def test_scores_hold_the_answers_to_all_test_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1.5 million rows and ten classes each copy in float64 is 114 MiB."""
    monkeypatch.setattr(heads, "BLOCK_VALUES", 2**16)
    task, logits = heads.task("t", TaskSpec(), THREE), np.zeros((1_000_000, 3), np.float32)
    made: dict[str, np.ndarray] = {}
    most = most_allocated(lambda: made.update(heads.scored({"t": task}, [logits], lambda _: {"t": logits})))
    assert made["t"].nbytes < most < 1.5 * made["t"].nbytes
    most = most_allocated(lambda: evaluate.measure("multiclass", made["t"], np.zeros(len(logits)), metric="accuracy"))
    assert most < 52 * len(logits), "the measure's own parts, and no copy of the answers"


def naive_loss(task: Task, stored: np.ndarray, logits: np.ndarray) -> tuple[float, int]:
    """Row by row, from the definitions."""
    rows = []
    for value, z in zip(stored, logits.astype(np.float64), strict=True):
        if task is MULTICLASS:
            each = [] if value < 0 else [-math.log(math.exp(z[value]) / sum(math.exp(one) for one in z))]
        elif task in (BINARY, MULTILABEL):
            pairs = zip(np.atleast_1d(value), z, strict=True)
            known = [(one, p) for one, p in pairs if one in (0, 1)]
            each = [-math.log(1 / (1 + math.exp(-p if one == 1 else p))) for one, p in known]
        else:
            each = [(p - one) ** 2 for one, p in zip(value.ravel(), z, strict=True) if not math.isnan(one)]
        if each:
            rows.append(sum(each) / len(each))
    return (sum(rows) / len(rows) if rows else 0.0), len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "stored"),
    [
        (BINARY, np.array([1, 0, -1, 1], np.int32)),
        (MULTICLASS, np.array([2, -1, 0, 1], np.int32)),
        (MULTILABEL, np.array([[1, 0, NAN, 1], [NAN] * 4, [0, NAN, NAN, NAN], [1, 1, 1, 0]], np.float32)),
        (
            NUMBERS,
            np.where(np.arange(24).reshape(4, 2, 3) % 5 == 0, NAN, np.arange(24.0).reshape(4, 2, 3)).astype("f4"),
        ),
        (BINARY, np.full(4, -1, np.int32)),
    ],
    ids=["binary", "multiclass", "multilabel", "regression", "no label"],
)
def test_the_loss_is_the_mean_over_labelled_rows_of_the_mean_over_their_known_outputs(task: Task, stored: Any) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (4, task.units)).astype(np.float32)
    loss, count = heads.loss(task, heads.targets(task, stored), logits)
    expected, rows = naive_loss(task, stored, logits)
    assert float(count) == rows
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL, NUMBERS, EMBEDDING], ids=lambda task: task.type)
def test_the_output_layer_says_what_answers_says(task: Task) -> None:
    task = heads.fit_scale(task, np.random.default_rng(1).normal(3, 2, (9, 6))) if task is NUMBERS else task
    logits = np.random.default_rng(0).normal(0, 2, (5, task.units)).astype(np.float32)
    layer = heads.output_layer(task)
    assert layer.name == "t"
    assert np.asarray(layer(logits)) == pytest.approx(heads.answers(task, logits), abs=1e-5)


def test_only_numbers_enter_delta_m_by_another_metric() -> None:
    assert {
        task.type: evaluate.scoring(task.type).RELATIVE for task in (BINARY, MULTICLASS, MULTILABEL, NUMBERS, EMBEDDING)
    } == {
        "binary": None,
        "embedding": None,
        "multiclass": None,
        "multilabel": None,
        "regression": "rmse",
    }
