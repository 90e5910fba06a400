"""A model in other programs' formats answers as it does in Keras; what cannot be written here is refused before anything is trained."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import methods
from app.spec import exports
from app.spec.faults import Invalid
from app.spec.models import HeadSpec
from tests.app.builtin_lookup import BuiltIns
from tests.worker.training import small
from tests.worker.training.kept.installed import INSTALLED
from worker.training.data.scaling import Scaling
from worker.training.kept import export, formats
from worker.training.networks import build
from worker.training.networks.network import Network
from worker.training.process.failures import Failure, failed

BODY: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "digits",
    "source": {"train": {"dataset": "strokes"}},
    "export": ["saved_model", "onnx", "litert", "onnx"],
}


@pytest.fixture(scope="module")
def picture() -> Network:
    """Every kind of head, BatchNorm with statistics of its own, dropout."""
    arch = {"arch": "cnn", "filters": [4, 4], "dense": 8, "batch_norm": True, "dropout": 0.3}
    made = small.network(
        [small.DIGIT, small.ODD, small.SIZE, small.SIGNS], 0, arch, small.PICTURE, HeadSpec(units=5, dropout=0.2)
    )
    rng = np.random.default_rng(1)
    made.weights = {
        name: [(array + rng.uniform(0.01, 0.3, array.shape)).astype(np.float32) for array in arrays]
        for name, arrays in made.weights.items()
    }
    return made


def rows(network: Network, n: int = 9) -> np.ndarray:
    rng = np.random.default_rng(2)
    if network.input.kind == "image":
        return rng.integers(0, 256, (n, *network.input.shape)).astype(np.uint8)
    return rng.standard_normal((n, *network.input.shape)).astype(np.float32)


@pytest.mark.slow
def test_each_format_answers_as_keras_does_for_every_kind_of_head_and_any_number_of_rows(
    picture: Network, tmp_path: Path
) -> None:
    told = formats.write(picture, ["keras", *INSTALLED], rows(picture), tmp_path)  # type: ignore[list-item]
    assert set(told) == set(INSTALLED)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(exports.FILES[one] for one in told)  # type: ignore[index]
    for about in told.values():
        assert about["largest_difference"] <= 1e-5
        assert about["bytes"] == (tmp_path / about["file"]).stat().st_size > 1000


@pytest.mark.slow
def test_a_table_model_in_half_precision_is_written_in_full(tmp_path: Path) -> None:
    made = replace(small.network([small.SIZE, small.ODD], 0, {"arch": "mlp", "units": [6]}), precision="mixed_bfloat16")
    told = formats.write(made, INSTALLED, rows(made), tmp_path)  # type: ignore[arg-type]
    assert max(about["largest_difference"] for about in told.values()) <= 1e-5


@pytest.mark.slow
def test_what_the_zip_holds_is_served_by_tensorflow_alone(picture: Network, tmp_path: Path) -> None:
    import tensorflow as tf

    formats.write(picture, ["saved_model"], rows(picture), tmp_path)
    with zipfile.ZipFile(tmp_path / "model.saved_model.zip") as whole:
        assert whole.testzip() is None
        assert all(name.startswith("saved_model/") for name in whole.namelist())
        whole.extractall(tmp_path)
    serve = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    given = rows(picture, 3).astype(np.float32)
    expected = export.inference_model(picture).predict_on_batch(given)
    for name, values in serve(tf.constant(given)).items():
        assert np.abs(values.numpy() - expected[name]).max() <= 1e-5 * max(1, np.abs(expected[name]).max())


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "fine"), [(0.9e-4, True), (1.1e-4, False), (np.nan, False)])
def test_a_file_that_answers_otherwise_is_no_export(
    picture: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float, fine: bool
) -> None:
    def writer(model: Any, path: Path) -> Any:
        path.write_bytes(b"x")
        return lambda given: {
            name: np.asarray(values) + (shift if name == "digit" else 0)
            for name, values in model.predict_on_batch(given).items()
        }

    monkeypatch.setitem(formats._WRITERS, "litert", writer)
    if fine:
        formats.write(picture, ["litert"], rows(picture), tmp_path)
        return
    with pytest.raises(Failure, match="for digit differ") as caught:
        formats.write(picture, ["litert"], rows(picture), tmp_path)
    assert caught.value.code == "export_failed"


@pytest.mark.slow
def test_a_writer_that_fails_is_told_in_words_of_ours(
    picture: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(formats._WRITERS, "litert", lambda model, path: 1 / 0)
    with pytest.raises(Failure, match=r"litert could not be written \(ZeroDivisionError\)"):
        formats.write(picture, ["litert"], rows(picture), tmp_path)


@pytest.mark.slow
def test_a_full_disk_is_told_as_such_whatever_the_writer_calls_it(
    picture: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: object, path: Path) -> None:
        raise RuntimeError(f"{path}; No space left on device [Op:SaveV2]")  # as TensorFlow words it

    monkeypatch.setitem(formats._WRITERS, "saved_model", full)
    with pytest.raises(RuntimeError) as caught:
        formats.write(picture, ["saved_model"], rows(picture), tmp_path)
    assert failed(caught.value, None).code == "disk_full"
    assert failed(caught.value, None).retryable


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(exports, "find_spec", lambda name: None if name in packages else object())


def test_where_onnx_is_not_installed_it_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnx", "tf2onnx")
    with pytest.raises(Invalid) as caught:
        methods.check(BODY, BuiltIns())
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [
        ("/export/1", "not_available"),
        ("/export/3", "not_available"),
    ]
    assert "tf2onnx, onnx" in caught.value.faults[0].message
    assert "bequest[onnx]" in str(caught.value.faults[0].hint)
    with pytest.raises(Failure, match="not installed"):
        formats.require(["keras", "onnx"])


def test_other_backends_write_keras_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(Invalid) as caught:
        methods.check(BODY, BuiltIns())
    assert [fault.pointer for fault in caught.value.faults] == [f"/export/{place}" for place in range(4)]
    assert all("jax" in fault.message and "KERAS_BACKEND" in str(fault.hint) for fault in caught.value.faults)
    assert formats.require(["keras"]) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(("backend", "faults"), [("jax", 4), ("tensorflow", 0), ("auto", 4)])
def test_a_job_s_own_backend_decides_its_formats(backend: str, faults: int, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found = []
    try:
        methods.check({**BODY, "backend": backend}, BuiltIns())
    except Invalid as invalid:
        found = invalid.faults
    assert [fault.pointer for fault in found] == [f"/export/{place}" for place in range(faults)]


@pytest.mark.parametrize("kind", ["transfer", "multitask", "distillation"])
def test_every_kind_resolves_its_formats_once_each_with_keras_among_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    body = {**methods.kinds()[kind].EXAMPLE, "export": BODY["export"]}
    assert methods.check(body, BuiltIns()).export == ["keras", "saved_model", "onnx", "litert"]
    assert methods.check(methods.kinds()[kind].EXAMPLE, BuiltIns()).export == ["keras"]


def test_a_machine_without_keras_leaves_the_answer_to_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "keras", "onnx")
    assert methods.check(BODY, BuiltIns()).export == ["keras", "saved_model", "onnx", "litert"]


def test_the_live_layers_of_the_test_are_those_of_the_file(picture: Network) -> None:
    assert set(build.keras_layers(picture).layers) <= {layer.name for layer in export.inference_model(picture).layers}
    assert os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"


@pytest.mark.slow
def test_columns_far_from_zero_lose_no_precision(tmp_path: Path) -> None:
    made = replace(small.network([small.ODD]), scaling=Scaling((1e6, 0.0, -3e5, 1.0, 2.0), (1.0, 1e-3, 2.0, 1.0, 1.0)))
    given = (np.random.default_rng(0).standard_normal((9, 5)) * made.scaling.std + made.scaling.mean).astype(np.float32)
    told = formats.write(made, INSTALLED, given, tmp_path)  # type: ignore[arg-type]
    assert max(about["largest_difference"] for about in told.values()) <= 1e-5
