"""Combining methods is a matter of references: a kept model teaches, is fine-tuned, is refused where it has seen the test."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.base import plain
from app.spec.faults import validate
from app.spec.models import Manifest
from app.spec.registry import modules
from tests.worker.training.small import Quiet
from worker.reports import Exit, Failed, Kept, Result, Warned
from worker.training import trainer

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


class World(trainer.LocalWorld):
    def __init__(self, manifest: Manifest | None):
        self.kept = manifest

    def manifest(self, ref: str) -> Manifest:
        assert self.kept is not None
        return self.kept


def run(body: dict[str, Any], out: Path, given: dict[str, Any] | None = None) -> tuple[Exit, list[Any]]:
    """A job trained in this process; `given` is what the reference `job:job_1` stands for."""
    method = modules("methods")[body["kind"]]
    world = World(Manifest.model_validate(given["manifest"]) if given else None)
    spec = method.resolve(validate(method.Spec, body), world)
    job = {"id": "job_2", "attempt": 1, "kind": body["kind"], "spec": plain(spec), "datasets": {}, "kept": {}}
    told = Quiet()
    code = trainer.run({**job, "models": {"job:job_1": given} if given else {}}, out, told, threading.Event())
    return code, told.reports


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("first")
    code, reports = run(WINE, out)
    assert code == Exit.DONE
    (model,) = [report for report in reports if isinstance(report, Kept) and report.role == "model"]
    assert ("initialized_from", "source") in {(edge.relation, edge.target) for edge in model.edges}
    about = json.loads((out / "manifest.json").read_text())
    return {"id": "mdl_1", "path": str(out / "model.keras"), "manifest": about, "rows": str(out / "model.rows.npy")}


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
    (model,) = [report for report in reports if isinstance(report, Kept) and report.role == "model"]
    assert {(edge.relation, edge.target) for edge in model.edges} == {
        ("initialized_from", "mdl_1"),
        ("distilled_from", "mdl_1"),
        ("trained_on", "wine"),
    }
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["distillation"]["params_ratio"] == 1.0
    assert report["inherited"]["fresh"] == {}
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
    from worker.training import export

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
