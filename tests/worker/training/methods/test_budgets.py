"""What the arms of a job may spend: the same patience in both, and under `budget: total` all that the treated one cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.worker.training.methods.resolving import faults
from tests.worker.training.whole_jobs import kept_model, run
from worker.reports import Exit, Warned

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TINY = {"arch": "mlp", "units": [4]}
WINE: dict[str, Any] = {"dataset": "wine", "architecture": TINY, "training": {"steps": 7}}
PATIENT = {"epochs": 4, "batch_size": 16, "early_stopping": {"patience": 2}}


def finished(body: dict[str, Any], out: Path, *given: dict[str, Any]) -> dict[str, Any]:
    code, reports = run(body, out, *given)
    assert code == Exit.DONE, reports[-1]
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def steps(report: dict[str, Any]) -> dict[str, int]:
    return {role: one["steps"] for role, one in report["models"].items()}


def epoch_steps(out: Path) -> int:
    """Of the job's model, which ends where an epoch does."""
    about: dict[str, int] = json.loads((out / "manifest.json").read_text())["training"]
    return about["steps"] // about["epochs"]


def test_a_single_task_control_of_a_few_labels_is_as_patient_as_the_shared_model(tmp_path: Path) -> None:
    body = {
        "kind": "multitask",
        "dataset": "digits",
        "limit_train_examples": 320,
        "tasks": {"digit": {"limit_train_labels": 12}, "odd": {}},
        "trunk": {"arch": "cnn", "filters": [2], "dense": 4},
        "training": PATIENT,
        "control": {"seeds": 1},
    }
    spent = steps(finished(body, tmp_path))
    epoch = epoch_steps(tmp_path)
    assert epoch > 10
    # Twelve labels are one batch: counted in epochs of its own, patience would end after three steps.
    assert spent["control/0/digit"] >= 3 * epoch


def test_a_student_without_unlabelled_rows_is_as_patient_as_one_with_them(tmp_path: Path) -> None:
    body = {
        "kind": "distillation",
        "dataset": "wine",
        "limit_train_examples": 12,
        "unlabelled": "wine",
        "teacher": {"train": WINE},
        "student": TINY,
        "training": PATIENT,
        "control": {"seeds": 1},
    }
    spent = steps(finished(body, tmp_path))
    epoch = epoch_steps(tmp_path)
    assert epoch > 1
    assert spent["control/0"] >= 3 * epoch


def test_the_total_of_a_transfer_counts_the_steps_behind_a_kept_source(tmp_path: Path) -> None:
    finished({"kind": "transfer", **WINE, "source": {"train": WINE}}, tmp_path / "first")
    kept = kept_model(tmp_path / "first", "mdl_1")
    body = {
        "kind": "transfer",
        "dataset": "wine",
        "source": "job:job_1",
        "training": {"steps": 5},
        "control": {"seeds": 1, "budget": "total"},
    }
    spent = steps(finished(body, tmp_path / "second", kept))
    assert (spent["model"], spent["control/0"]) == (5, 5 + 7)


def test_the_total_of_a_distillation_counts_teachers_and_earlier_generations(tmp_path: Path) -> None:
    body = {
        "kind": "distillation",
        "dataset": "wine",
        "teachers": [{"train": WINE}, {"train": WINE}],
        "student": TINY,
        "generations": 3,
        "training": {"steps": 5},
        "control": {"seeds": 2, "budget": "total"},
    }
    report = finished(body, tmp_path)
    spent = steps(report)
    assert (spent["model"], spent["control/0"]) == (5, 5 + 2 * 5 + 2 * 7)
    ((_, told),) = report["verdict"]["tasks"].items()
    assert told["budget"]["besides"]["generation_steps"] == 2 * 5  # of one arm, as all that stands beside it
    assert told["budget"]["besides"]["teacher_steps"] == 2 * 7


def test_a_job_is_told_of_phases_and_weightings_that_its_steps_never_reach(tmp_path: Path) -> None:
    late = {"strategy": "lp_ft", "freeze_epochs": 50}
    code, reports = run({"kind": "transfer", **WINE, "source": {"train": WINE}, **late}, tmp_path / "transfer")
    assert code == Exit.DONE
    assert "phase_never_begins" in {report.code for report in reports if isinstance(report, Warned)}
    body = {
        "kind": "multitask",
        "dataset": "digits",
        "limit_train_examples": 64,
        "tasks": {"digit": {}, "odd": {}},
        "trunk": {"arch": "cnn", "filters": [2], "dense": 4},
        "weighting": "stch",
    }
    code, reports = run({**body, "training": {"steps": 3, "batch_size": 32}}, tmp_path / "multitask")
    assert code == Exit.DONE
    assert "weighting_never_begins" in {report.code for report in reports if isinstance(report, Warned)}
    assert "/weighting" in faults({**body, "training": {"epochs": 4}})
    assert "/weighting" not in faults({**body, "training": {"epochs": 0}})  # one fault is enough


def test_a_total_is_refused_where_nothing_was_spent_before_or_nobody_knows_how_much() -> None:
    total = {"control": {"seeds": 1, "budget": "total"}}
    alone = {"kind": "multitask", "dataset": "digits", "tasks": {"digit": {}, "odd": {}}, **total}
    assert "/control/budget" in faults(alone)
    unknown = {"kind": "transfer", "dataset": "digits", "source": {"applications": "MobileNetV2", "weights": "none"}}
    assert "/control/budget" in faults({**unknown, **total})
