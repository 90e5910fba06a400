"""Jobs whose source, teacher or student was made for pictures of another size: from an upload to a model that plain Keras reads."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data
from app.data import builtins, npz_file, prepared
from app.data.upload_limits import UploadLimits
from app.spec.base import plain
from app.spec.data import Schema
from app.spec.faults import validate
from app.spec.models import Manifest
from app.spec.registry import modules
from tests.worker.training.methods.distilled import StopIn
from worker.reports import Exit, Kept, Warned
from worker.training import trainer
from worker.training.dummy import Quiet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

HALF, COLOUR = "ds_half", "ds_colour"
TINY = {"arch": "cnn", "filters": [4, 6], "dense": 8, "batch_norm": True}


class Lookup(trainer.LocalLookup):
    def __init__(self, uploads: dict[str, dict[str, str]], kept: dict[str, Any]):
        self.uploads, self.kept = uploads, kept

    def schema(self, ref: str) -> Schema:
        return data.load(ref, self.uploads.get(ref)).schema

    def manifest(self, ref: str) -> Manifest:
        return Manifest.model_validate(self.kept[ref]["manifest"])


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Digits at 14×14 as whole numbers, and at 20×12 in colour as numbers in 0…1: uploads, read and stored as the service does."""
    home, digits = tmp_path_factory.mktemp("uploads"), builtins.load("digits")
    half = digits.inputs.reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4)).astype(np.uint8)
    part = digits.inputs[:, 4:24, 8:20].astype(np.float32) / 255
    colour = np.concatenate([part, part * 0.5, part * 0.9], axis=-1)
    entries = {}
    for ref, inputs in ((HALF, half), (COLOUR, colour)):
        file = io.BytesIO()
        np.savez_compressed(file, x=inputs, digit=digits.columns["digit"])
        prepared.write(npz_file.read(file, ("digit",), UploadLimits()), home / f"{ref}.npz")
        entries[ref] = {"path": str(home / f"{ref}.npz"), "sha256": ref}
    return entries


def job(body: dict[str, Any], uploads: dict[str, Any], models: dict[str, Any] | None = None) -> dict[str, Any]:
    method = modules("methods")[body["kind"]]
    spec = method.resolve(validate(method.Spec, body), Lookup(uploads, models or {}))
    about = {"id": "job_1", "attempt": 1, "kind": body["kind"], "kept": {}}
    return {**about, "spec": plain(spec), "datasets": uploads, "models": models or {}}


def run(assignment: dict[str, Any], out: Path, told: Quiet | None = None, stop: threading.Event | None = None) -> Quiet:
    told = told or Quiet()
    code = trainer.run(assignment, out, told, stop or threading.Event())
    assert code == (Exit.STOPPED if stop else Exit.DONE), told.reports[-1]
    return told


def kept_model(out: Path, role: str, name: str = "model") -> dict[str, Any]:
    manifest = "manifest.json" if name == "model" else f"{name}.manifest.json"
    about = json.loads((out / manifest).read_text())
    rows = str(out / about["rows_file"]) if about["rows_file"] else None
    return {"id": role, "path": str(out / f"{name}.keras"), "manifest": about, "rows": rows}


def weights_of(path: Path) -> list[np.ndarray]:
    import keras

    return [np.asarray(array) for array in keras.saving.load_model(path, compile=False).get_weights()]


def warned(told: Quiet) -> dict[str, str]:
    return {one.code: one.message for one in told.reports if isinstance(one, Warned)}


FROM_STROKES: dict[str, Any] = {
    "kind": "transfer",
    "dataset": HALF,
    "limit_train_examples": 60,
    "source": {
        "train": {
            "dataset": "strokes",
            "architecture": TINY,
            "limit_train_examples": 200,
            "training": {"epochs": 2},
        }
    },
    "strategy": "lp_ft",
    "training": {"epochs": 3, "batch_size": 32},
    "export": ["saved_model"],
    "control": {"seeds": 1},
}


@pytest.fixture(scope="module")
def transferred(uploads: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Quiet]:
    out = tmp_path_factory.mktemp("transfer")
    return out, run(job(FROM_STROKES, uploads), out)


def test_a_transfer_to_pictures_of_another_size_goes_from_an_upload_to_a_model_and_says_so(
    transferred: tuple[Path, Quiet],
) -> None:
    import keras

    out, told = transferred
    adapted = {"fed": [14, 14, 1], "seen": [28, 28, 1], "channels": "kept", "block_means": [1, 1]}
    report = json.loads((out / "report.json").read_text())
    assert report["input"] == adapted
    assert report["export"]["saved_model"]["largest_difference"] <= 1e-5
    assert set(report["inherited"]["copied"]) == {"conv1", "norm1", "conv2", "norm2", "dense1", "digit_logits"}
    assert "stretched from 14×14 to 28×28" in warned(told)["input_adapted"]
    assert "its layers see it as 28 × 28 × 1" in (out / "card.md").read_text()
    whole = {name: keras.saving.load_model(out / f"{name}.keras", compile=False) for name in ("model", "control-0")}
    for model in whole.values():
        assert model.input_shape == (None, 14, 14, 1)
        assert any(operation.name.startswith("resize") for operation in model.operations)
    model, control = whole.values()
    assert model.count_params() == control.count_params()
    rows = builtins.load("digits").inputs.reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4)).astype(np.uint8)[:5]
    answers = model.predict_on_batch(rows.astype(np.float32))["digit"]
    assert answers.sum(axis=-1) == pytest.approx(np.ones(5), abs=1e-5)


def test_rows_of_two_sizes_cannot_be_compared_and_the_report_does_not_claim_that_they_were(
    transferred: tuple[Path, Quiet], uploads: dict[str, Any], tmp_path: Path
) -> None:
    out, told = transferred
    report = json.loads((out / "report.json").read_text())
    assert report["overlap"] == "unknown"
    assert any("overlap: unknown" in note for note in report["verdict"]["notes"])
    assert "overlap with the test rows is unknown" in (out / "card.md").read_text()
    assert "overlap_unknown" in warned(told)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["rows_shapes"] == [[14, 14, 1], [28, 28, 1]]
    assert json.loads((out / "control-0.manifest.json").read_text())["rows_shapes"] == []
    # and it is remembered: on 14×14 the model itself needs no adapting layer more, yet what is behind it stays unknown
    body = {"kind": "transfer", "dataset": HALF, "source": "job:job_1", "strategy": "feature_extraction"}
    later = run(
        job({**body, "training": {"epochs": 1}}, uploads, {"job:job_1": kept_model(out, "mdl_1")}), tmp_path / "later"
    )
    assert {"input_adapted", "overlap_unknown"} <= set(warned(later))
    assert json.loads((tmp_path / "later" / "manifest.json").read_text())["canvas"] == [28, 28, 1]
    own = {"id": "mdl_2", **{key: kept_model(out, "", "control-0")[key] for key in ("path", "manifest", "rows")}}
    assert own["manifest"]["canvas"] == [28, 28, 1]
    third = run(job({**body, "training": {"epochs": 1}}, uploads, {"job:job_1": own}), tmp_path / "third")
    assert "overlap_unknown" not in warned(third)


def test_a_transfer_at_another_size_stopped_in_its_second_phase_ends_bit_for_bit_as_one_that_was_not(
    transferred: tuple[Path, Quiet], uploads: dict[str, Any], tmp_path: Path
) -> None:
    assignment = {**job(FROM_STROKES, uploads), "checkpoints": str(tmp_path / "checkpoints")}
    stop = threading.Event()
    told = run(assignment, tmp_path / "first", StopIn(stop, "target"), stop)
    names = [one.role for one in told.reports if isinstance(one, Kept)]
    assert names == ["source", "unfinished"]
    kept = {"source": kept_model(tmp_path / "first", "source", "source")}
    run({**assignment, "kept": kept}, tmp_path / "second")
    for one, two in zip(
        weights_of(transferred[0] / "model.keras"), weights_of(tmp_path / "second" / "model.keras"), strict=True
    ):
        assert np.array_equal(one, two)


def test_a_frozen_trunk_s_features_cached_or_not_come_to_the_same_model(
    transferred: tuple[Path, Quiet], uploads: dict[str, Any], tmp_path: Path
) -> None:
    models = {"job:job_1": kept_model(transferred[0], "mdl_1", "source")}
    body = {"kind": "transfer", "dataset": COLOUR, "source": "job:job_1", "strategy": "feature_extraction"}
    body |= {"limit_train_examples": 60, "training": {"epochs": 3, "batch_size": 32}}
    found = []
    for how in (True, False):
        run(job({**body, "cache_features": how}, uploads, models), tmp_path / str(how))
        found.append(weights_of(tmp_path / str(how) / "model.keras"))
    assert all(np.allclose(one, other, rtol=0, atol=1e-6) for one, other in zip(*found, strict=True))
    report = json.loads((tmp_path / "True" / "report.json").read_text())
    assert report["input"]["channels"] == "averaged"
    manifest = Manifest.model_validate_json((tmp_path / "True" / "manifest.json").read_text())
    assert (manifest.input.scale, manifest.input.shape, manifest.trunk_input.shape) == (1.0, [20, 12, 3], [28, 28, 1])


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_teacher_and_a_student_of_two_other_sizes_distil_alike_online_and_cached(
    transferred: tuple[Path, Quiet], uploads: dict[str, Any], tmp_path: Path
) -> None:
    """The teacher sees 28×28 in one channel, the rows are 20×12 in colour, the student sees them as they are."""
    teacher = kept_model(transferred[0], "mdl_1")
    body = {
        "kind": "distillation",
        "dataset": COLOUR,
        "limit_train_examples": 64,
        "unlabelled": COLOUR,
        "teacher": "job:job_1",
        "student": {"arch": "cnn", "filters": [3, 4], "dense": 6},
        "objectives": [{"type": "logits"}, {"type": "hint"}, {"type": "attention"}],
        "training": {"epochs": 1, "batch_size": 64},
    }
    found = {}
    for how in ("cached", "online"):
        told = run(job({**body, "teacher_outputs": how}, uploads, {"job:job_1": teacher}), tmp_path / how)
        found[how] = weights_of(tmp_path / how / "model.keras")
        assert "averaged over its three channels" in warned(told)["input_adapted"]
    assert all(np.allclose(one, two, rtol=0, atol=1e-4) for one, two in zip(*found.values(), strict=True))
    report = json.loads((tmp_path / "cached" / "report.json").read_text())
    assert report["input"] is None
    assert report["distillation"]["teachers"][0]["input"]["seen"] == [28, 28, 1]
    assert report["overlap"] == "unknown"

    import keras

    from worker.training.kept.export import read

    logits = read(Path(teacher["path"]), Manifest.model_validate(teacher["manifest"]))
    assert logits.input_resize == [28, 28, 1]
    # a student that starts from that model sees what it saw, and its next generation too
    again = {
        **body,
        "student": "job:job_1",
        "objectives": [{"type": "logits"}],
        "generations": 2,
        "control": {"seeds": 1},
    }
    run(job(again, uploads, {"job:job_1": teacher}), tmp_path / "again")
    for name in ("model", "control-0", "generation-0-1"):
        model = keras.saving.load_model(tmp_path / "again" / f"{name}.keras", compile=False)
        assert model.input_shape == (None, 20, 12, 3)
        assert "input_averaged" in {layer.name for layer in model.layers}
    assert json.loads((tmp_path / "again" / "report.json").read_text())["inherited"]["fresh"] == {}
