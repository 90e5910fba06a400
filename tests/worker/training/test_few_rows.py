"""No job holds all rows: whatever it does, it asks for a chunk of them at a time. Figures do not depend on where rows lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data as datasets
from app.data import builtins, prepared, source
from app.data.source import RowSource
from tests.worker.training.attempts import differences, unbroken
from worker.training import trainer
from worker.training.data.inputs import table as tables
from worker.training.fitting import caching

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SMALL = {"arch": "cnn-small"}
STEPS = {"steps": 4, "batch_size": 16}
SOURCE = {"train": {"dataset": "strokes", "architecture": SMALL, "training": STEPS}}
JOBS: dict[str, dict[str, Any]] = {
    "transfer, features cached, two arms, other formats": {
        "kind": "transfer",
        "dataset": "digits",
        "architecture": SMALL,
        "source": SOURCE,
        "strategy": "feature_extraction",
        "cache_features": True,
        "training": {"steps": 30},
        "control": {"seeds": 1},
        "export": ["saved_model"],
    },
    "distillation with unlabelled rows, cached": {
        "kind": "distillation",
        "dataset": "digits",
        "limit_train_examples": 100,
        "unlabelled": "digits",
        "teacher": {"train": {"dataset": "digits", "architecture": SMALL, "training": STEPS}},
        "student": SMALL,
        "training": STEPS,
        "control": {"seeds": 1},
    },
    "distillation, online": {
        "kind": "distillation",
        "dataset": "digits",
        "teacher": SOURCE,
        "teacher_outputs": "online",
        "student": SMALL,
        "training": STEPS,
    },
    "multitask": {
        "kind": "multitask",
        "dataset": "digits",
        "tasks": {"digit": {}, "odd": {"limit_train_labels": 50}},
        "trunk": SMALL,
        "training": STEPS,
    },
}


class Sparing(RowSource):
    """Rows of an array, a chunk at a time at most."""

    def __init__(self, rows: np.ndarray):
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
        self.most = 0

    def take(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return np.asarray(self._rows[rows])


@pytest.mark.parametrize("name", JOBS)
def test_a_job_asks_for_a_chunk_of_rows_at_a_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = unbroken(trainer.resolved_alone(JOBS[name]), tmp_path / "plain")
    made: dict[str, Sparing] = {}

    def load(ref: str, entry: Any = None) -> datasets.Table:
        table = builtins.load(ref)
        rows = made.setdefault(ref, Sparing(np.asarray(table.inputs)))
        return replace(table, inputs=rows)

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(source, "BLOCK_VALUES", 28 * 28 * 100)
    spared = unbroken(trainer.resolved_alone(JOBS[name]), tmp_path / "spared")
    assert not differences(plain.result, spared.result)
    assert {rows.most <= caching.CHUNK for rows in made.values()} == {True}
    assert all(rows.most for rows in made.values())


def test_figures_of_rows_in_a_file_are_those_of_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SMALL_BYTES", 0)
    body = {
        "kind": "transfer",
        "dataset": "wine",
        "source": {"train": {"dataset": "wine", "training": {"steps": 10}}},
        "training": {"steps": 10},
        "control": {"seeds": 1},
    }
    prepared.write(builtins.load("wine"), tmp_path / "wine.npz")
    words = trainer.resolved_alone(body)
    plain = unbroken(words, tmp_path / "plain")
    path = {"path": str(tmp_path / "wine.npz"), "sha256": words["datasets"]["wine"]["sha256"]}
    stored = unbroken({**words, "datasets": {"wine": path}}, tmp_path / "stored")
    assert not differences(plain.result, stored.result)


@pytest.mark.parametrize("features", [1, 2, 13])
def test_a_table_is_scaled_block_by_block_as_numpy_scales_the_whole(
    features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BLOCK_VALUES", 100)
    rng = np.random.default_rng(features)
    rows = (rng.standard_normal((900, features)) * np.exp(3 * rng.standard_normal(features)) + 7).astype(np.float32)
    parts = [(rows[:500], rng.permutation(500)[:333]), (rows[500:], np.arange(400))]
    whole = np.concatenate([source[numbers] for source, numbers in parts]).astype(np.float64)
    fitted = tables.fit(builtins.schema("wine").input, parts)
    assert fitted.mean == tuple(whole.mean(axis=0).astype(np.float32).tolist())
    assert fitted.std == tuple(whole.std(axis=0).astype(np.float32).tolist())
