"""What needs no network: the value it has on the test rows, and that no test row has taught it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, r2_score

from app import data as datasets
from app.spec.data import SplitSpec
from app.spec.models import TaskSpec
from worker.training.data.rows import Data
from worker.training.experiment.report import baselines as module
from worker.training.experiment.report.baselines import baselines, evenly
from worker.training.tasks import heads


def made(ref: str, *columns: str, **more: Any) -> Data:
    table = datasets.load(ref)
    tasks = {name: heads.task(name, TaskSpec(column=name), table.schema.columns[name]) for name in columns}
    return Data(ref, table, datasets.split(table, SplitSpec(), columns), tasks, **more)


def entries(data: Data, seed: int = 0) -> dict[str, Any]:
    return baselines(data, data.subset(seed), lambda: None)


def test_of_classes_the_most_frequent_one_and_logistic_regression_of_the_columns() -> None:
    data = made("breast_cancer", "class", limit=100)
    entry = entries(data)["class"]
    y, train, test = data.table.columns["class"], data.subset(0).train, data.split.test
    assert (entry["metric"], entry["better"]) == ("accuracy", "higher")
    assert entry["constant"] == {
        "what": "the most frequent class",
        "value": pytest.approx(np.mean(y[test] == np.bincount(y[train]).argmax())),
        "reason": None,
        "train_rows": 100,
        "test_rows": len(test),
    }
    x = data.table.inputs[np.arange(len(y))]
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    theirs = LogisticRegression(tol=1e-8, max_iter=9999).fit(x[train], y[train]).score(x[test], y[test])
    assert entry["linear"]["what"] == "logistic regression on the prepared columns"
    assert entry["linear"]["value"] == pytest.approx(theirs, abs=1.01 / len(test))


def test_balanced_accuracy_of_one_answer_for_all_is_an_even_share() -> None:
    data = made("digits", "digit")
    scored = module._Scored(data, data.tasks["digit"], "balanced_accuracy")
    value = scored.entry("x", 1, lambda rows: np.tile(np.eye(10)[3], (len(rows), 1)))["value"]
    truth = data.table.columns["digit"][data.split.test]
    assert value == pytest.approx(balanced_accuracy_score(truth, np.full(len(truth), 3))) == pytest.approx(0.1)
    assert entries(data)["digit"]["linear"] is None, "pictures have no plain features"


def test_of_numbers_the_mean_and_ridge_regression() -> None:
    data = made("diabetes", "progression")
    entry, test = entries(data)["progression"], data.split.test
    y, train = data.table.columns["progression"], data.split.train
    expected = r2_score(y[test], np.full(len(test), y[train].mean(dtype=np.float64)))
    assert entry["constant"]["value"] == pytest.approx(expected, abs=1e-5)
    assert [entry[which]["what"] for which in ("constant", "linear")] == [
        "the mean",
        "ridge regression on the prepared columns",
    ]
    assert -0.1 < expected <= 0
    assert 0.25 < entry["linear"]["value"] < 0.7


@pytest.mark.slow
def test_of_texts_logistic_regression_of_weighed_words() -> None:
    entry = entries(made("messages", "topic", "mood"))
    assert entry["topic"]["linear"]["what"] == "logistic regression on TF-IDF of words"
    for name in ("topic", "mood"):
        assert entry[name]["linear"]["value"] > entry[name]["constant"]["value"] + 0.2


@pytest.mark.slow
def test_a_label_of_a_test_or_validation_row_moves_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: answers are compared, for the score of a row whose label changes does change."""
    answered: list[np.ndarray] = []
    entry = module._Scored.entry

    def kept(self: Any, words: str, rows: int, answers: Any) -> dict[str, Any]:
        answered.append(answers(self._test))
        return entry(self, words, rows, answers)

    monkeypatch.setattr(module._Scored, "entry", kept)
    for ref, column in (("wine", "class"), ("messages", "topic"), ("diabetes", "progression")):
        data = made(ref, column)
        answered.clear()
        entries(data)
        before, values = list(answered), data.table.columns[column].copy()
        held_out = np.concatenate([data.split.test, data.split.validation])
        values[held_out] = values[held_out[::-1]]
        answered.clear()
        entries(replace(data, table=replace(data.table, columns={column: values})))
        assert len(before) == len(answered) == 2
        assert all(np.array_equal(one, other) for one, other in zip(before, answered, strict=True))
        values[data.split.train] = values[data.split.train[::-1]]
        answered.clear()
        entries(replace(data, table=replace(data.table, columns={column: values})))
        assert not np.array_equal(before[1], answered[1]), "training labels do"


def test_nothing_is_drawn() -> None:
    data = made("wine", "class")
    np.random.seed(0)
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    assert entries(data) == entries(data)
    assert np.array_equal(state, np.random.get_state()[1])


def test_labels_that_may_not_be_used_teach_nothing() -> None:
    data = made("messages", "topic", "mood", label_limits={"topic": 20})
    entry = entries(data)
    assert entry["topic"]["constant"]["train_rows"] == entry["topic"]["linear"]["train_rows"] == 20
    assert entry["mood"]["constant"]["train_rows"] == len(data.split.train)


def test_too_many_rows_are_thinned_and_too_many_outputs_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evenly(np.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert evenly(np.arange(3), 4).tolist() == [0, 1, 2]
    data = made("wine", "class")
    monkeypatch.setattr(module, "MOST_ROWS", 30)
    entry = entries(data)["class"]
    assert (entry["linear"]["train_rows"], entry["linear"]["test_rows"]) == (30, 30)
    monkeypatch.setattr(module, "MOST_WORK", 13 * 3 * 29)
    linear = entries(data)["class"]["linear"]
    assert (linear["value"], linear["reason"]) == (None, "3 outputs from 13 features take too long")
    assert entries(data)["class"]["constant"]["value"] is not None


def test_of_labels_the_most_frequent_set() -> None:
    from worker.training.tasks import multilabel

    task: Any = None
    nan = np.nan
    values = np.array([[1, 0], [1, 1], [1, 1], [0, nan], [0, nan], [0, nan]], np.float32)
    assert multilabel.constant(task, values).tolist() == [1, 1]
    assert multilabel.constant(task, values[3:]).tolist() == [0, 0]


def test_of_vectors_each_number_s_mean_and_rows_with_gaps_are_left_out() -> None:
    from worker.training.tasks import regression

    task: Any = None
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    assert regression.constant(task, values).tolist() == [2.0, 5.0]
    x = np.ones((3, 2), np.float32)
    model = regression.linear(task, x, values)
    assert model is not None
    assert model(x).tolist() == [[3.0, 5.0]] * 3
    assert regression.linear(task, x[:1], values[:1]) is None


def test_of_identities_one_vector_and_the_columns_as_they_are() -> None:
    table = datasets.load("wine")
    task = heads.task("class", TaskSpec(column="class", type="embedding"), table.schema.columns["class"])
    split = datasets.split(table, SplitSpec(by="random"), ["class"])
    entry = entries(Data("wine", table, split, {"class": task}))["class"]
    assert (entry["metric"], entry["constant"]["value"]) == ("roc_auc", 0.5)
    assert entry["linear"]["what"] == "plain cosines on the prepared columns"
    assert 0.8 < entry["linear"]["value"] < 1


def test_of_a_text_s_next_byte_a_compressor_too_and_of_nothing_else() -> None:
    data = made("messages", "next_token", limit=300)
    entry = entries(data)["next_token"]
    assert entry["compressor"]["what"].startswith("deflate, as gzip has it")
    assert entry["compressor"]["test_rows"] == len(data.split.test)
    assert entry["compressor"]["train_rows"] == 300
    assert 1 < entry["compressor"]["value"] < entry["constant"]["value"] - 2
    changed = data.table.inputs[np.arange(len(data.table))].copy()
    changed[data.split.test] = 65  # what it knows is of training rows alone
    other = replace(data, table=replace(data.table, inputs=changed))
    assert entries(other)["next_token"]["compressor"]["value"] < 1
    assert "compressor" not in entries(made("wine", "class"))["class"]
