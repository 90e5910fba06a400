"""Every sharing as a whole job in the trainer: words, controls, conflicts, exports, and what the kept model can be used for."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.training.whole_jobs import run
from worker.reports import Exit, Failed, Kept
from worker.training.kept import export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

JOB: dict[str, Any] = {
    "kind": "multitask",
    "dataset": "digits",
    "limit_train_examples": 200,
    "tasks": {"digit": {}, "odd": {"limit_train_labels": 60}},
    "trunk": {"arch": "cnn-small", "batch_norm": True, "dropout": 0.2},
    "training": {"epochs": 2, "batch_size": 50},
}

JOBS: dict[str, dict[str, Any]] = {
    "mmoe": {"sharing": "mmoe", "experts": 2, "weighting": "pcgrad"},
    "cgc": {"sharing": "cgc", "weighting": "gradnorm", "export": ["saved_model", "litert"]},
    "ple": {"sharing": {"name": "ple", "levels": 2}, "weighting": "uncertainty"},  # its formats: test_sharing.py
    "cross_stitch": {"sharing": "cross_stitch", "weighting": "famo"},
    "two data sets": {
        "sharing": "cgc",
        "experts_per_task": 2,
        "tasks": {"digit": {}, "drawn": {"dataset": "strokes", "column": "digit"}},
    },
    "nothing shared": {"sharing": "cgc", "experts": 0, "control": {"seeds": 1}},
}


@pytest.mark.parametrize("name", list(JOBS))
def test_a_job_goes_from_its_words_to_a_model(name: str, tmp_path: Path) -> None:
    body = {**JOB, **JOBS[name]}
    code, reports = run(body, tmp_path)
    assert code == Exit.DONE, [report for report in reports if isinstance(report, Failed)]
    report = json.loads((tmp_path / "report.json").read_text())
    told = json.loads((tmp_path / "manifest.json").read_text())
    words = body["sharing"] if isinstance(body["sharing"], str) else body["sharing"]["name"]
    assert report["sharing"] == told["sharing"]
    assert told["sharing"]["name"] == words
    assert (report["conflicts"] is None) == (name == "nothing shared")
    kept = {one.role for one in reports if isinstance(one, Kept)}
    assert kept == {"model"} | ({"control/0/digit", "control/0/odd"} if "control" in body else set())
    for form in body.get("export", ()):
        assert report["export"][form]["largest_difference"] <= 1e-4
    import keras

    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert set(model.output) == set(body["tasks"])
    mine = [layer for layer in model.layers if layer.name in told["layers"]]
    assert sum(layer.count_params() for layer in mine) == told["parameters"]


def test_a_model_of_experts_teaches(tmp_path: Path) -> None:
    body = {**JOB, **JOBS["mmoe"], "weighting": "equal"}
    assert run(body, tmp_path / "a")[0] == Exit.DONE
    told = json.loads((tmp_path / "a" / "manifest.json").read_text())
    given = {
        "id": "mdl_1",
        "path": str(tmp_path / "a" / "model.keras"),
        "manifest": told,
        "rows": str(tmp_path / "a" / "model.rows.npy"),
    }
    student = {
        "kind": "distillation",
        "dataset": "digits",
        "limit_train_examples": 100,
        "teacher": "job:job_1",
        "training": {"epochs": 2},
    }
    code, reports = run(student, tmp_path / "b", given)
    assert code == Exit.DONE, [report for report in reports if isinstance(report, Failed)]
    whole = export.read(tmp_path / "a" / "model.keras", export.Manifest.model_validate(told))
    assert {name.split("-")[0] for name in whole.weights} == {
        "expert1",
        "expert2",
        "digit",
        "odd",
        "digit_logits",
        "odd_logits",
    }
    assert whole.parameters == told["parameters"]


def test_one_expert_scores_as_hard_sharing_does(tmp_path: Path) -> None:
    """The same job in two words: equal losses at every step that is logged, equal answers of the kept models."""
    import keras

    rows = (255 * np.random.default_rng(0).uniform(0, 1, (16, 28, 28, 1))).astype(np.float32)
    answers, logged = [], []
    for name, words in {"hard": {}, "one": {"sharing": "mmoe", "experts": 1}}.items():
        out = tmp_path / name
        assert run({**JOB, **words}, out)[0] == Exit.DONE
        answers.append(keras.saving.load_model(out / "model.keras", compile=False).predict_on_batch(rows))
        with (out / "metrics.csv").open() as file:
            logged.append([row for row in csv.reader(file) if "loss" in row[0]])
    assert logged[0] == logged[1]
    assert all(np.array_equal(answers[0][task], answers[1][task]) for task in ("digit", "odd"))
