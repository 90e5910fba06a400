"""Combining methods is a matter of references: a kept model teaches, is fine-tuned, is refused where it has seen the test."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.models import Manifest
from tests.worker.training.whole_jobs import kept_model, run
from worker.reports import Exit, Failed, Kept, Result, Warned

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WINE: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "wine",
    "source": {"train": {"dataset": "wine", "training": {"epochs": 3}}},
    "training": {"epochs": 3},
}


def lineage(reports: list[Any], role: str = "model") -> set[tuple[str, str]]:
    (model,) = [report for report in reports if isinstance(report, Kept) and report.role == role]
    return {(edge.relation, edge.target) for edge in model.edges}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("first")
    code, reports = run(WINE, out)
    assert code == Exit.DONE
    assert ("initialized_from", "source") in lineage(reports)
    return kept_model(out, "mdl_1")


def test_a_fine_tuned_model_teaches_a_student_that_starts_from_it(kept: dict[str, Any], tmp_path: Path) -> None:
    body = {
        "kind": "distillation",
        "dataset": "wine",
        "teacher": "job:job_1",
        "student": "job:job_1",
        "training": {"epochs": 2},
        "control": {"seeds": 1},
    }
    code, reports = run(body, tmp_path, kept)
    assert code == Exit.DONE
    assert lineage(reports) == {("initialized_from", "mdl_1"), ("distilled_from", "mdl_1"), ("trained_on", "wine")}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["distillation"]["params_ratio"] == 1.0
    assert report["inherited"]["fresh"] == {}
    card = (tmp_path / "card.md").read_text()
    assert "| model | initialized from | mdl\\_1: mlp" in card
    assert "| model | distilled from | mdl\\_1: mlp" in card
    inherited = {row.tobytes() for row in np.load(kept["rows"])}
    assert inherited <= {row.tobytes() for row in np.load(tmp_path / "model.rows.npy")}
    assert isinstance(reports[-1], Result)


def test_a_model_that_was_trained_on_this_job_s_test_rows_is_refused(kept: dict[str, Any], tmp_path: Path) -> None:
    code, reports = run({**WINE, "source": "job:job_1", "split": {"seed": 1}}, tmp_path, kept)
    assert code == Exit.FAILED
    assert isinstance(reports[-1], Failed)
    assert reports[-1].code == "data_overlap"


def test_a_model_without_row_hashes_is_used_and_the_report_says_that_overlap_is_unknown(
    kept: dict[str, Any], tmp_path: Path
) -> None:
    code, reports = run(
        {**WINE, "source": "job:job_1", "strategy": "feature_extraction"}, tmp_path, {**kept, "rows": None}
    )
    assert code == Exit.DONE
    assert [report.code for report in reports if isinstance(report, Warned)] == ["overlap_unknown"]
    assert any(
        "overlap: unknown" in note for note in json.loads((tmp_path / "report.json").read_text())["verdict"]["notes"]
    )
    (model,) = [report for report in reports if isinstance(report, Kept)]
    assert model.rows is None


def test_feature_extraction_keeps_the_source_s_trunk_in_the_kept_file(kept: dict[str, Any], tmp_path: Path) -> None:
    from worker.training.kept import export

    code, _ = run({**WINE, "source": "job:job_1", "strategy": "feature_extraction"}, tmp_path, kept)
    assert code == Exit.DONE
    before = export.read(Path(kept["path"]), Manifest.model_validate(kept["manifest"]))
    after = export.read(
        tmp_path / "model.keras", Manifest.model_validate_json((tmp_path / "manifest.json").read_text())
    )
    assert after.scaling == before.scaling
    for name, arrays in after.weights.items():
        unchanged = all(np.array_equal(one, other) for one, other in zip(arrays, before.weights[name], strict=True))
        assert unchanged == (name != "class_logits"), name


def test_a_file_that_is_not_the_kept_one_is_refused(kept: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other.keras"
    other.write_bytes(Path(kept["path"]).read_bytes() + b" ")
    code, reports = run({**WINE, "source": "job:job_1"}, tmp_path / "out", {**kept, "path": str(other)})
    assert code == Exit.FAILED
    assert reports[-1].code == "weights_unavailable"


def test_a_distilled_student_is_fine_tuned_on_another_task(tmp_path: Path) -> None:
    small = {"epochs": 2}
    distilled: dict[str, Any] = {
        "kind": "distillation",
        "dataset": "digits",
        "split": {"by": "random"},
        "limit_train_examples": 60,
        "teacher": {"train": {"dataset": "digits", "architecture": "cnn-small", "limit_train_examples": 60}},
        "student": {"arch": "cnn-small", "filters": [2, 4, 4], "dense": 8},
        "training": small,
    }
    distilled["teacher"]["train"]["training"] = small
    code, reports = run(distilled, tmp_path / "first")
    assert code == Exit.DONE
    assert ("distilled_from", "teacher") in lineage(reports)
    student = kept_model(tmp_path / "first", "mdl_1")
    body = {
        "kind": "transfer",
        "dataset": "digits",
        "target": "odd",
        "split": {"by": "random"},
        "source": "job:job_1",
        "limit_train_examples": 60,
        "training": small,
    }
    code, reports = run(body, tmp_path / "second", student)
    assert code == Exit.DONE
    assert lineage(reports) == {("initialized_from", "mdl_1"), ("trained_on", "digits")}
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    assert set(report["inherited"]["fresh"]) == {"odd_logits"}  # another task: the trunk is inherited, the head is new
    # The teacher's rows stay behind the student's, and so behind the fine-tuned one.
    rows = [{row.tobytes() for row in np.load(tmp_path / name / "model.rows.npy")} for name in ("first", "second")]
    assert rows[0] <= rows[1]


def test_single_task_teachers_teach_one_multi_task_student_with_annealing(tmp_path: Path) -> None:
    """BAM: one kept teacher, one that the job trains first, a task without any; the control is the same model on labels alone."""
    single = {
        "kind": "multitask",
        "dataset": "digits",
        "tasks": {"odd": {}},
        "split": {"by": "random"},
        "trunk": "cnn-small",
        "limit_train_examples": 60,
        "training": {"epochs": 2},
    }
    code, _ = run(single, tmp_path / "odd")
    assert code == Exit.DONE
    stage = {"dataset": "digits", "architecture": "cnn-small", "limit_train_examples": 60, "training": {"epochs": 2}}
    body = {
        "kind": "multitask",
        "dataset": "digits",
        "tasks": {
            "digit": {"teacher": {"train": stage}, "limit_train_labels": 20},
            "odd": {"teacher": "job:job_1", "objectives": [{"type": "logits", "temperature": 2.0, "weight": 0.5}]},
            "at_least_5": {},
        },
        "split": {"by": "random"},
        "weight_schedule": "linear_anneal",
        "trunk": "cnn-small",
        "limit_train_examples": 60,
        "training": {"epochs": 4, "batch_size": 20},
        "control": {"seeds": 1},
    }
    code, reports = run(body, tmp_path / "all", kept_model(tmp_path / "odd", "mdl_1"))
    assert code == Exit.DONE
    assert lineage(reports) == {
        ("distilled_from", "teacher/digit"),
        ("distilled_from", "mdl_1"),
        ("trained_on", "digits"),
    }
    assert lineage(reports, "control/0") == {("control_of", "model"), ("trained_on", "digits")}
    report = json.loads((tmp_path / "all" / "report.json").read_text())
    assert report["verdict"]["tasks"]["digit"]["control"]["arm"] == "same multitask cnn-small on labels alone"
    assert set(report["distillation"]["tasks"]) == {"digit", "odd"}
    assert report["distillation"]["tasks"]["odd"]["teachers"][0]["model"] == "mdl_1"
    metrics = logged(tmp_path / "all" / "metrics.csv")
    steps = sorted(step for name, step in metrics if name == "digit_label_weight")
    first, last = ({name: metrics[name, step] for name, at in metrics if at == step} for step in (steps[0], steps[-1]))
    assert first["digit_label_weight"] < last["digit_label_weight"] == pytest.approx(1.0)
    assert first["digit_logits_weight"] > last["digit_logits_weight"] == pytest.approx(0.0)
    assert "at_least_5_label_weight" not in first
    # Without labels of its own in a batch the label-poor task still learns from its teacher.
    for values in (first, last):
        total = sum(values[f"{task}_weighted_loss"] for task in ("digit", "odd", "at_least_5"))
        assert values["loss"] == pytest.approx(total, rel=1e-5)


def logged(path: Path) -> dict[tuple[str, int], float]:
    """The job's own model's metrics: {(name, step): value}."""
    with path.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["value"]]
    return {(row["name"], int(row["step"])): float(row["value"]) for row in rows}
