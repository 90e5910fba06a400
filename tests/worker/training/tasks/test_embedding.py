"""Vectors of identities: the loss against a naive one with its gradient, answers of length 1, figures, and what a spec must say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from app.spec.models import TaskManifest, TaskSpec
from app.spec.tasks import embedding as embedding_spec
from tests.app.columns import THREE
from tests.worker.training.methods.resolving import MODEL, Lookup, faults, resolve
from worker.training.scores import evaluate, pairs
from worker.training.tasks import embedding, heads

TASK = heads.task("t", TaskSpec(type="embedding", units=3), THREE)
GROUPED = {"by": "group", "column": "digit"}


def naive(stored: np.ndarray, logits: np.ndarray) -> list[float | None]:
    """Row by row, from the paper's equation 2; None of a row without a label or alone."""
    unit = [row / math.sqrt(sum(x * x for x in row)) for row in logits.astype(np.float64)]
    labelled = [i for i in range(len(stored)) if stored[i] >= 0]
    rows: list[float | None] = []
    for i in range(len(stored)):
        others = [a for a in labelled if a != i]
        same = [p for p in others if stored[p] == stored[i]]
        if stored[i] < 0 or not same:
            rows.append(None)
            continue
        whole = sum(math.exp(float(unit[i] @ unit[a]) / 0.1) for a in others)
        rows.append(-sum(math.log(math.exp(float(unit[i] @ unit[p]) / 0.1) / whole) for p in same) / len(same))
    return rows


STORED = {
    "several": np.array([0, 1, 0, 2, 1, 0, 4], np.int32),
    "without some labels": np.array([0, -1, 0, -1, 1, 1, 2], np.int32),
    "all alone": np.arange(7, dtype=np.int32),
    "no label": np.full(7, -1, np.int32),
    "one labelled": np.array([-1, -1, 3, -1, -1, -1, -1], np.int32),
    "all of one": np.zeros(7, np.int32),
}


def rows_of(stored: np.ndarray, logits: Any) -> tuple[np.ndarray, np.ndarray]:
    given = heads.targets(TASK, stored)
    rows, mask = embedding.loss(given["t"], given["t/labelled"], logits)
    return np.asarray(rows), np.asarray(mask)


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED)
def test_each_row_s_loss_is_the_paper_s_and_a_row_alone_has_none(name: str) -> None:
    stored = STORED[name]
    logits = np.random.default_rng(0).normal(0, 2, (7, 3)).astype(np.float32)
    rows, mask = rows_of(stored, logits)
    expected = naive(stored, logits)
    assert mask.tolist() == [float(value is not None) for value in expected]
    for value, other in zip(rows.tolist(), expected, strict=True):
        assert value == pytest.approx(0.0 if other is None else other, rel=1e-4, abs=1e-6)
    known = [value for value in expected if value is not None]
    loss, count = heads.loss(TASK, heads.targets(TASK, stored), logits)
    assert float(count) == len(known)
    assert float(loss) == pytest.approx(sum(known) / max(1, len(known)), rel=1e-4)


def mean(stored: np.ndarray, logits: np.ndarray) -> float:
    known = [value for value in naive(stored, logits) if value is not None]
    return sum(known) / max(1, len(known))


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED)
def test_its_gradient_is_that_of_the_naive_loss_and_ends_at_rows_without_labels(name: str) -> None:
    tf = pytest.importorskip("tensorflow")
    stored, step = STORED[name], 1e-5
    logits = np.random.default_rng(1).normal(0, 2, (7, 3))
    variable = tf.Variable(logits.astype(np.float32))
    with tf.GradientTape() as tape:
        loss, _ = heads.loss(TASK, heads.targets(TASK, stored), variable)
    found = np.asarray(tape.gradient(loss, variable))
    expected = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        ahead, behind = logits.copy(), logits.copy()
        ahead[place] += step
        behind[place] -= step
        expected[place] = (mean(stored, ahead) - mean(stored, behind)) / (2 * step)
    assert found == pytest.approx(expected, abs=2e-4)
    assert (found[stored < 0] == 0).all()


@pytest.mark.slow
def test_a_vector_of_nothing_has_a_finite_loss_and_gradient() -> None:
    tf = pytest.importorskip("tensorflow")
    variable = tf.Variable(np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [1e-9, 0, 0]], np.float32))
    with tf.GradientTape() as tape:
        loss, _ = heads.loss(TASK, heads.targets(TASK, np.array([0, 0, 1, 1], np.int32)), variable)
    assert np.isfinite(float(loss))
    assert np.isfinite(np.asarray(tape.gradient(loss, variable))).all()


def test_answers_have_length_1() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 3))
    unit = heads.answers(TASK, logits)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(5))
    assert unit * np.linalg.norm(logits, axis=1, keepdims=True) == pytest.approx(logits)
    assert (heads.answers(TASK, np.zeros((1, 3))) == 0).all()


def test_a_task_has_the_units_asked_for_and_no_classes() -> None:
    assert (TASK.units, TASK.classes) == (3, None)
    assert heads.task("t", TaskSpec(type="embedding"), THREE).units == 64
    again = heads.of_manifest("t", TASK.manifest())
    assert (again.units, again.classes) == (3, None)


def test_figures_are_those_of_the_pairs_and_fit_the_report() -> None:
    rng = np.random.default_rng(0)
    identities = np.concatenate([rng.integers(0, 20, 120), np.full(5, -1)])
    vectors = rng.normal(0, 1, (20, 4))[identities] + rng.normal(0, 0.7, (125, 4))
    entry = evaluate.evaluate("embedding", vectors, identities, metric="roc_auc")
    told = pairs.told(vectors[:120], identities[:120])
    truth = np.repeat([1, 0], [len(told.same), len(told.different)])
    area = roc_auc_score(truth, np.concatenate([told.of_same, told.of_different]))
    assert entry["metric"]["value"] == entry["roc_auc"] == pytest.approx(area)
    assert (entry["n"], entry["missing"], entry["identities"]) == (120, 5, 20)
    assert entry["equal_error_rate"] == pairs.equal_error(told)[0]
    refused = np.mean(told.of_same < entry["threshold"])
    accepted = np.mean(told.of_different >= entry["threshold"])
    assert refused == pytest.approx(entry["equal_error_rate"], abs=0.02) == pytest.approx(accepted, abs=0.04)
    assert embedding_spec.Figures.model_validate(entry).equal_error_rate == entry["equal_error_rate"]


@pytest.mark.parametrize(
    ("identities", "why"),
    [
        (np.arange(6), "no two rows are of one identity"),
        (np.zeros(6, int), "all rows are of one identity"),
        (np.full(6, -1), "no row has a label"),
    ],
)
def test_without_pairs_nothing_has_a_value(identities: np.ndarray, why: str) -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (6, 4))
    measured = evaluate.measure("embedding", vectors, identities, metric="roc_auc")
    assert math.isnan(measured.value)
    assert measured.undefined == why
    entry = evaluate.evaluate("embedding", vectors, identities, metric="roc_auc")
    assert (entry["metric"]["value"], entry["undefined"]["metric"]) == (None, why)
    assert entry.get("equal_error_rate") is None


# --- what a spec must say


def job(**words: Any) -> dict[str, Any]:
    task = {"column": "digit", "type": "embedding", **words.pop("task", {})}
    return {"kind": "multitask", "dataset": "digits", "tasks": {"who": task}, "split": GROUPED, **words}


def test_the_split_must_be_by_the_identities_and_the_words_for_it_are_given() -> None:
    told = faults(job(split={}))
    assert told == {
        "/split": "who is examined on identities that it has not seen: no value of 'digit' may be on two sides"
        ' (set "split": {"by": "group", "column": "digit"})'
    }
    assert list(faults(job(split={"by": "group", "column": "odd"}))) == ["/split"]
    assert resolve(job()).tasks["who"].type == "embedding"


def test_classes_that_are_learnt_as_classes_may_not_be_groups() -> None:
    told = faults({**job(), "tasks": {"digit": {}}})
    assert list(told) == ["/split/column"]
    assert "learn it with type: embedding" in told["/split/column"]
    transfer = {
        "kind": "transfer",
        "dataset": "digits",
        "source": {"train": {"dataset": "strokes", "architecture": "cnn-small"}},
        "split": GROUPED,
    }
    assert list(faults(transfer)) == ["/split/column"]
    assert resolve({**transfer, "target_type": "embedding"}).target_type == "embedding"
    assert list(faults({**transfer, "split": {}, "target_type": "embedding"})) == ["/split"]
    assert list(faults({**transfer, "split": {}, "target_type": "regression"})) == ["/target_type"]


def test_its_vectors_may_be_shorter_or_longer_within_bounds_and_others_follow_from_their_column() -> None:
    assert resolve(job(task={"units": 16})).tasks["who"].units == 16
    assert faults(job(task={"units": 1})) == {"/tasks/who/units": "so many numbers are not offered (choose 2 to 1024)"}
    told = faults({**job(split={}), "tasks": {"odd": {"units": 3}}})
    assert told == {"/tasks/odd/units": "the outputs of a binary task follow from its column (leave it out)"}


def test_a_teacher_teaches_by_its_features_alone() -> None:
    vectors = {"who": TaskManifest(type="embedding", column="digit", units=64)}
    taught = {"task": {"teacher": MODEL}}
    lookup = Lookup(tasks=vectors)
    (told,) = faults(job(**taught), lookup).values()
    assert "no soft targets" in told
    assert "features" in told
    for name in ("dkd", "dist"):
        assert faults(job(**taught, objectives=[{"type": name}]), lookup)
    for name in ("relational", "hint", "similarity"):
        (objective,) = resolve(job(**taught, objectives=[{"type": name}]), lookup).tasks["who"].objectives
        assert objective.layers
    assert "/logit_standardization" in faults(
        job(**taught, objectives=[{"type": "hint"}], logit_standardization=True), lookup
    )
    other = Lookup()
    (told,) = faults(job(**taught, objectives=[{"type": "hint"}]), other).values()
    assert "no head of this teacher fits" in told
