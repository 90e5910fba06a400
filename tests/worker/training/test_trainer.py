"""The trainer program as its worker sees it: jobs in, report lines and files out; stopped, continued, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec import exports
from app.spec.models import Manifest
from tests import plain_keras
from tests.worker.training.driven import KINDS, ROOT, TRANSFER, Ended, assignment, drive, kept_by, weights_of
from worker.reports import (
    ArtifactReport,
    Checkpoint,
    Exit,
    Failed,
    Kept,
    Metrics,
    Progress,
    Ready,
    Result,
    Resumed,
    Stage,
    Started,
    Warned,
    decode,
)
from worker.training import trainer


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_was_stopped_and_continued_in_new_processes_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    straight = drive(assignment(TRANSFER, tmp_path / "a"), tmp_path / "a" / "out")
    assert straight.code == Exit.DONE

    def reached(report: Any) -> bool:
        return isinstance(report, Metrics) and "loss" in report.values and report.step >= 30

    first = drive(assignment(TRANSFER, tmp_path / "b"), tmp_path / "b" / "one", reached)
    assert first.code == Exit.STOPPED
    assert [report.role for report in first.of(Kept)] == ["source", "unfinished"]
    saved = first.of(Checkpoint)[-1]
    assert saved.stage == "target"

    def halfway(report: Any) -> bool:
        return isinstance(report, Metrics) and "control/0/loss" in report.values and report.step >= 30

    killed = drive(
        assignment(TRANSFER, tmp_path / "b", kept_by(first)), tmp_path / "b" / "two", halfway, signal.SIGKILL
    )
    assert killed.code == -signal.SIGKILL
    assert [report.stage for report in killed.of(Resumed)] == ["target", "control/0"]  # the source is not trained again
    assert killed.of(Resumed)[0].step == saved.step >= 30

    kept = kept_by(first) | kept_by(killed)
    second = drive(assignment(TRANSFER, tmp_path / "b", kept), tmp_path / "b" / "three")
    assert second.code == Exit.DONE
    assert [report.stage for report in second.of(Resumed)] == ["control/0"]
    assert second.of(Resumed)[0].step == max(
        (report.step for report in killed.of(Checkpoint)[-1:] if report.stage == "control/0"), default=0
    )
    kept |= kept_by(second)
    for role in ("model", "control/0"):
        for ours, theirs in zip(weights_of(kept_by(straight)[role]), weights_of(kept[role]), strict=True):
            assert np.array_equal(ours, theirs)

    tables = [(ended.out / "metrics.csv").read_text() for ended in (straight, second)]
    assert tables[0] == tables[1]
    reports = [json.loads((ended.out / "report.json").read_text()) for ended in (straight, second)]
    assert reports[0]["tasks"] == reports[1]["tasks"]
    assert reports[0]["inherited"] == reports[1]["inherited"]


EXPORTS = ["saved_model", "litert", *(["onnx"] if exports.unavailable("onnx") is None else [])]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KINDS))
def test_each_kind_goes_from_its_words_to_a_verdict_with_all_files(name: str, tmp_path: Path) -> None:
    ended = drive(assignment({**KINDS[name], "export": EXPORTS}, tmp_path), tmp_path / "out")
    assert ended.code == Exit.DONE, [*ended.of(Failed), (tmp_path / "out" / "trainer.log").read_text()[-3000:]]
    kinds = [type(report) for report in ended.reports]
    assert kinds[:2] == [Ready, Started]
    assert kinds[-1] is Result
    stages = [report.name for report in ended.of(Stage)]
    assert "target" in stages
    assert any(stage.startswith("control/0") for stage in stages)
    assert {report.of for report in ended.of(Stage)} == {len(stages)}
    assert {report.stage for report in ended.of(Progress)} >= {stage for stage in stages if stage != "evaluate"}
    files = {
        "report.json",
        "metrics.csv",
        "card.md",
        "curve.svg",
        "seeds.svg",
        *(exports.FILES[one] for one in EXPORTS),
    }
    assert {report.name for report in ended.of(ArtifactReport)} == files
    assert not [line for line in ended.of(Warned) if line.code != "rows_dropped"]

    text = (ended.out / "report.json").read_text(encoding="utf-8")
    assert "\\u" not in text, "a person reads it with curl and grep"
    report = json.loads(text)
    assert (report["decision"], report["reason"]) == ("inconclusive", "few_seeds")
    if name == "multitask":
        pairs = {tuple(pair["tasks"]) for pair in report["conflicts"]["pairs"]}
        assert pairs == {("digit", "odd"), ("digit", "stroke"), ("odd", "stroke")}
    assert set(report["export"]) == set(EXPORTS)
    assert max(told["largest_difference"] for told in report["export"].values()) <= 1e-4
    assert report["model"]["latency"]["ms_per_row"] > 0
    assert report["sentence"].split(":")[0] in (ended.out / "card.md").read_text()
    assert "control" in (ended.out / "curve.svg").read_text()
    metrics = (ended.out / "metrics.csv").read_text()
    assert "\nloss," in metrics
    assert "\ncontrol/0/" in metrics
    for kept in ended.of(Kept):
        manifest = Manifest.model_validate_json((ended.out / kept.manifest).read_text())
        assert manifest.role == kept.role
        rows = np.load(ended.out / kept.rows)
        assert rows.shape[1:] == (16,)
        assert rows.dtype == np.uint8
    held_out = {row.tobytes() for ref in report["rows"] for row in test_rows(KINDS[name], ref)}
    assert held_out
    for kept in ended.of(Kept):
        assert not held_out & {row.tobytes() for row in np.load(ended.out / kept.rows)}, kept.role
    check_in_a_plain_process(ended)


def test_rows(body: dict[str, Any], ref: str) -> np.ndarray:
    """The hashes of a data set's test rows, by the data part alone."""
    from app import data
    from app.spec.data import SplitSpec

    table = data.load(ref)
    columns = [
        words.get("column") or name for name, words in body.get("tasks", {}).items() if words.get("dataset") == ref
    ]
    return table.hashes[data.split(table, SplitSpec(), columns or [str(table.schema.target)]).test]


test_rows.__test__ = False  # type: ignore[attr-defined]

PLAIN = """
import sys, json, numpy as np, keras
model = keras.saving.load_model(sys.argv[1])
assert getattr(model, 'optimizer', None) is None
shape = model.input_shape[1:]
answers = model.predict(np.random.default_rng(0).uniform(0, 200, (5, *shape)).astype("float32"), verbose=0)
print(json.dumps({
    "answers": {name: np.asarray(values).tolist() for name, values in answers.items()},
    "layers": [layer.name for layer in model.layers],
    "modules": sorted({type(layer).__module__.split(".")[0] for layer in model.layers}),
    "ours": [name for name in sys.modules if name.split(".")[0] in ("app", "worker")],
}))
"""


def check_in_a_plain_process(ended: Ended) -> None:
    """The model loads where Bequest is not, of stock layers alone, and gives probabilities or numbers in the user's units."""
    manifest = Manifest.model_validate_json((ended.out / "manifest.json").read_text())
    told = plain_keras.run(PLAIN, ended.out, "model.keras")
    found = json.loads(told.splitlines()[-1])
    assert found["modules"] == ["keras"]
    assert not found["ours"]
    assert set(found["answers"]) == set(manifest.tasks)
    for name, task in manifest.tasks.items():
        values = np.array(found["answers"][name])
        assert values.shape == (5, task.units)
        assert {name, f"{name}_logits"} <= set(found["layers"])
        assert np.isfinite(values).all()
        if task.type == "multiclass":
            assert np.allclose(values.sum(axis=1), 1, atol=1e-5)
        elif task.type == "binary":
            assert ((values >= 0) & (values <= 1)).all()
        else:
            assert task.mean is not None
            assert np.abs(values - task.mean).max() < 100 * np.max(task.std)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_job_with_its_reason(tmp_path: Path) -> None:
    wild = {"steps": 300, "optimizer": {"name": "sgd", "learning_rate": 10.0}}
    body = {"kind": "transfer", "dataset": "diabetes", "source": {"train": {"dataset": "diabetes", "training": wild}}}
    ended = drive(assignment(body, tmp_path), tmp_path / "out")
    assert ended.code == Exit.FAILED
    (failed,) = ended.of(Failed)
    assert (failed.code, failed.blame, failed.stage, failed.retryable) == ("loss_not_finite", "user", "source", False)
    assert not ended.of(Kept)


@pytest.mark.slow
def test_a_spare_leaves_when_its_parent_does() -> None:
    line = [sys.executable, "-m", "worker.training", "--spare"]
    ended = subprocess.run(line, cwd=ROOT, input=b"", capture_output=True, timeout=120, check=False)
    assert ended.returncode == Exit.DONE
    (ready,) = [decode(line) for line in ended.stdout.splitlines()]
    assert isinstance(ready, Ready)
    assert ready.keras


def test_a_light_spare_imports_no_keras() -> None:
    line = [sys.executable, "-X", "importtime", "-m", "worker.training", "--spare"]
    ended = subprocess.run(
        line,
        cwd=ROOT,
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "BEQUEST_SPARE_KERAS": "0"},
    )
    assert ended.returncode == Exit.DONE
    assert b"tensorflow" not in ended.stderr
    assert b"| keras" not in ended.stderr


@pytest.mark.slow
def test_a_bare_job_goes_on_in_its_folder_and_another_job_begins_anew(tmp_path: Path) -> None:
    job, out = tmp_path / "job.json", tmp_path / "out"
    tiny = {"kind": "transfer", "dataset": "wine", "source": {"train": {"dataset": "wine", "training": {"epochs": 1}}}}
    stages = []
    for epochs in (2, 2, 3):
        job.write_text(json.dumps({**tiny, "training": {"epochs": epochs}}))
        line = [sys.executable, "-m", "worker.training", str(job), str(out)]
        ended = subprocess.run(line, cwd=ROOT, capture_output=True, timeout=200, check=True)
        stages.append([report.name for report in map(decode, ended.stdout.splitlines()) if isinstance(report, Stage)])
    assert stages == [["source", "target", "evaluate"], ["evaluate"], ["source", "target", "evaluate"]]


def test_faults_of_a_bare_spec_are_told_and_nothing_is_trained(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({**TRANSFER, "dataset": "digit", "trainning": {}}))
    line = [sys.executable, "-m", "worker.training", str(job), str(tmp_path / "out")]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "/trainning: unknown field (did you mean 'training'?)" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_another_job_in_a_folder_finds_nothing_of_the_one_before(tmp_path: Path) -> None:
    """The first job's models would be taken for the second's as soon as it were continued."""
    first, second = ({"spec": {"name": name}} for name in "ab")
    assert trainer._continued(first, tmp_path) == first
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "model.savedmodel").mkdir()
    manifest = json.dumps({"role": "model", "rows_file": "model.rows.npy"})
    for name in (
        "model.keras",
        "source.keras",
        "model.rows.npy",
        "model.onnx",
        "report.json",
        "metrics.csv",
        "job.json",
    ):
        (tmp_path / name).write_text("{}")
    for name in ("manifest.json", "source.manifest.json"):
        (tmp_path / name).write_text(manifest)
    assert trainer._continued(first, tmp_path)["kept"].keys() == {"model"}
    assert trainer._continued(second, tmp_path) == second
    assert {path.name for path in tmp_path.iterdir()} == {"spec.json", "job.json"}
    assert trainer._continued(second, tmp_path)["kept"] == {}
