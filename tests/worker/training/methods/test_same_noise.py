"""`noise` has the unit of the target's own training rows in each arm, also where a network goes on with its source's scaling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data as datasets
from app.data import builtins
from app.data.builtins import Builtin
from app.data.inputs import multimodal
from app.data.table import Table, row_hashes
from tests.worker.training.watched import Stage, Watched, train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

LARGER = 50.0
STD = 0.1
SHORT = {"steps": 2, "batch_size": 16, "seed": 3, "augmentation": [{"type": "noise", "std": STD}]}
COMMON: dict[str, Any] = {"training": SHORT, "control": {"seeds": 1}}
SMALL = {"arch": "mlp", "units": [4]}
FUSION = {
    "arch": "late-fusion",
    "parts": {"file": {"arch": "cnn", "filters": [2], "dense": 3}, "table": SMALL, "note": "text-cnn-small"},
    "units": [4],
}


def in_other_units(name: str) -> Table:
    """A built-in whose measurements are all `LARGER` times as large."""
    table = builtins.load(name)
    inputs = np.array(table.inputs[:], np.float32)
    parts = table.schema.input.parts
    inputs[:, multimodal.cuts(parts)["table"].start if parts else slice(None)] *= LARGER
    return replace(table, inputs=inputs, hashes=row_hashes(inputs))


@pytest.fixture(scope="module", autouse=True)
def other_units() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("wine", "parcels"):
            patch.setitem(builtins.BUILTINS, f"{name}-other", Builtin("", "", lambda name=name: in_other_units(name)))
        yield


def source(dataset: str, architecture: Any) -> dict[str, Any]:
    stage = {"dataset": f"{dataset}-other", "architecture": architecture, "training": {"steps": 2}}
    return {"train": {**stage, "limit_train_examples": 60}}


def noise(arm: Stage, ref: str, raw: np.ndarray) -> np.ndarray:
    augment = arm.fit_spec.batch_sources[ref].augment
    assert augment is not None
    return augment(raw, 1)


def pairs(job: Watched) -> Iterator[tuple[Stage, str, np.ndarray]]:
    """(control, data set, raw rows) with the same rows for the treated arm as for each control."""
    for stage, arm in job.stages.items():
        if stage.startswith("control"):
            for ref in arm.fit_spec.batch_sources:
                yield arm, ref, datasets.load(ref).inputs[np.arange(40)]


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "transfer", "dataset": "wine", "limit_train_examples": 50, "source": source("wine", SMALL)},
        {"kind": "transfer", "dataset": "parcels", "limit_train_examples": 50, "source": source("parcels", FUSION)},
        {
            "kind": "distillation",
            "dataset": "wine",
            "student": SMALL,
            "teacher": source("wine", SMALL),
            "student_init": "from_teacher",
        },
        {
            "kind": "multitask",
            "trunk": SMALL,
            "tasks": {"class": {"dataset": "wine"}, "other": {"dataset": "wine-other", "column": "class"}},
        },
        {"kind": "multitask", "dataset": "lowrank", "trunk": SMALL, "tasks": {"main": {"limit_train_labels": 20}, "aux_1": {}}},
    ],
    ids=["transfer", "several inputs", "student from its teacher", "two data sets", "fewer labels of a task"],
)  # fmt: skip
def test_both_arms_see_the_same_noise_bit_for_bit(body: dict[str, Any], tmp_path: Path) -> None:
    job = train({**COMMON, **body}, tmp_path)
    treated = job.stages["target"]
    compared = list(pairs(job))
    assert len(compared) == (1 if body["kind"] != "multitask" else 2)
    for control, ref, raw in compared:
        ours, theirs = noise(treated, ref, raw), noise(control, ref, raw)
        assert np.array_equal(ours, theirs, equal_nan=True)
        assert not np.array_equal(ours, raw, equal_nan=True)
    if body["kind"] == "transfer":
        ours, theirs = treated.batch_source, control.batch_source
        assert not np.array_equal(ours.scaling(raw), theirs.scaling(raw)), "the source's scaling is no other"


def test_its_unit_is_the_deviation_of_the_draw_s_own_training_rows(tmp_path: Path) -> None:
    body = {"kind": "transfer", "dataset": "wine", "limit_train_examples": 50, "source": source("wine", SMALL)}
    treated = train({**COMMON, **body}, tmp_path).stages["target"]
    raw = datasets.load("wine").inputs[:].astype(np.float64)
    trained = datasets.load("wine").inputs[treated.batch_source.samplers[0].rows].astype(np.float64)
    assert len(trained) == 50
    moved = np.concatenate([treated.batch_source.augment(raw, step) - raw for step in range(40)])  # type: ignore[misc]
    assert moved.std(axis=0) == pytest.approx(STD * trained.std(axis=0), rel=0.05)
