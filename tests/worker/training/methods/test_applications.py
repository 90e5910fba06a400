"""`applications:NAME` in a spec: weights from a file of the operator's, random numbers, or a clear refusal; and jobs from one."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.settings import settings
from app.spec import files
from app.spec.architectures import applications
from app.spec.base import plain
from app.spec.faults import Invalid
from app.spec.lookup import Missing
from tests.traces import traced
from tests.worker.training.methods.resolving import Lookup, faults, resolve
from worker.reports import Exit, Failed, Warned
from worker.training import trainer
from worker.training.dummy import Quiet
from worker.training.methods import _layer_choice

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
BODY: dict[str, Any] = {"kind": "transfer", "dataset": "digits", "source": "applications:MobileNetV2"}
NONE = {"applications": "MobileNetV2", "weights": "none"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Open for files."""
    home = tmp_path / "open"
    home.mkdir()
    monkeypatch.setenv("BEQUEST_FILE_ROOTS", f"{tmp_path / 'missing'},{home}")
    settings.cache_clear()
    yield home
    monkeypatch.undo()
    settings.cache_clear()


def refused(body: dict[str, Any]) -> dict[str, tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        resolve(body)
    return {fault.pointer: (fault.code, str(fault.hint)) for fault in caught.value.faults}


# --- words


def test_without_the_file_imagenet_is_weights_unavailable_and_the_hint_says_where_it_goes(folder: Path) -> None:
    code, hint = refused(BODY)["/source/weights"]
    assert code == "weights_unavailable"
    assert FILE in hint
    assert "BEQUEST_FILE_ROOTS" in hint
    (folder / FILE).write_bytes(b"numbers")
    spec = resolve(BODY)
    expected = {"applications": "MobileNetV2", "alpha": 1.0, "size": [32, 32], "weights": "imagenet"}
    assert plain(spec)["source"] == {**expected, "sha256": hashlib.sha256(b"numbers").hexdigest()}
    assert plain(resolve(plain(spec))) == plain(spec)
    (folder / FILE).write_bytes(b"other numbers")
    os.utime(folder / FILE, (1, 1))
    assert refused(plain(spec))["/source/weights"][0] == "weights_unavailable"


def test_no_open_folder_means_no_file() -> None:
    assert refused(BODY)["/source/weights"][0] == "weights_unavailable"
    with pytest.raises(Missing, match="no folder is open"):
        files.find("any.h5")


def test_random_numbers_need_no_file_and_the_size_is_the_data_s_or_the_least() -> None:
    spec = resolve({**BODY, "source": NONE})
    assert plain(spec.architecture) == {"arch": "applications", "name": "MobileNetV2", "alpha": 1.0, "size": [32, 32]}
    assert spec.source.sha256 is None
    large = resolve({**BODY, "source": {"applications": "Xception", "weights": "none", "size": [96, 80]}})
    assert large.architecture.size == [96, 80]
    assert refused({**BODY, "source": {**NONE, "sha256": "0" * 64}}).keys() == {"/source/sha256"}


def test_only_files_in_the_open_folders_are_found_and_links_lead_nowhere(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.h5"
    outside.write_bytes(b"secret")
    (folder / "link.h5").symlink_to(outside)
    (folder / "folder.h5").mkdir()
    (folder / "fine.h5").write_bytes(b"x")
    for name in (str(outside), "../outside.h5", "link.h5", "folder.h5", "missing.h5", "x/../../outside.h5"):
        code, hint = refused({**BODY, "source": {"applications": "MobileNetV2", "weights": name}})["/source/weights"]
        assert code == "weights_unavailable"
        assert str(tmp_path) not in hint
        with pytest.raises(Missing, match="there is no such file"):
            files.find(name)
    for name in ("fine.h5", str(folder / "fine.h5"), "./fine.h5"):
        assert files.find(name)[0] == folder / "fine.h5"
    assert refused({**BODY, "source": {"applications": "MobileNetV2", "weights": "model.keras"}}).keys() == {
        "/source/weights"
    }


def test_what_a_backbone_cannot_be_is_refused_at_its_place() -> None:
    assert "did you mean 'MobileNetV2'?" in faults({**BODY, "source": "applications:MobileNetV1"})["/source"]
    for words, at in (
        ({"alpha": 0.4}, "/source/alpha"),
        ({"applications": "ResNet50V2", "alpha": 0.5}, "/source/alpha"),
        ({"size": [31, 32]}, "/source/size"),
        ({"applications": "Xception", "size": [70, 96]}, "/source/size"),
        ({"size": [2000, 32]}, "/source/size/0"),
        ({"applications": "VGG16"}, "/source/applications"),
    ):
        assert set(faults({**BODY, "source": {**NONE, **words}})) == {at}
    found = refused({**BODY, "dataset": "wine", "source": NONE})
    assert found["/source"][0] == "input_mismatch"
    found = faults({"kind": "distillation", "dataset": "digits", "teachers": [BODY["source"]]})
    assert "a kept model" in found["/teachers/0"]  # without a head it has nothing to say


@pytest.mark.parametrize("source", [NONE, "job:job_1"], ids=["a network", "a kept one"])
def test_what_treats_layers_apart_works_layer_by_layer(source: Any) -> None:
    kept = Lookup(architecture=plain(resolve({**BODY, "source": NONE}).architecture))
    shape = kept.kept.input.model_copy(update={"shape": [32, 32, 3]})
    kept.kept = kept.kept.model_copy(update={"input": shape})
    body = {**BODY, "source": source}
    gradual = resolve({**body, "strategy": "gradual_unfreezing", "training": {"epochs": 40}}, kept)
    assert len(gradual.unfreeze) == 32
    first, last = gradual.unfreeze[0], gradual.unfreeze[-1]
    assert first.layers[0] == "backbone-Conv_1"
    assert first.layers[-1] == "backbone-global_average_pooling2d"
    assert last.layers == ["backbone_scaled", "backbone-Conv1", "backbone-bn_Conv1", "backbone-Conv1_relu"]
    assert plain(resolve(plain(gradual), kept)) == plain(gradual)
    assert (
        "33 epochs"
        in faults({**body, "strategy": "gradual_unfreezing", "training": {"epochs": 20}}, kept)["/training/epochs"]
    )
    assert resolve({**body, "strategy": "lora"}, kept).lora.target_modules == "all"
    assert resolve({**body, "learning_rates": {"decay": 1.1}}, kept).learning_rates.decay == 1.1
    for freeze in ({"until_layer": "backbone-block_2_add"}, {"layers": ["backbone"]}, {"regex": "backbone.*BN"}):
        assert plain(resolve({**body, "freeze": freeze}, kept))["freeze"].items() >= freeze.items()
    found = faults({**body, "freeze": {"layers": ["backbone-block_2_ad"]}}, kept)
    assert "did you mean 'backbone-block_2_add'?" in found["/freeze/layers/0"]
    found = faults({**body, "strategy": "lora", "lora": {"target_modules": ["backbone-bn_Conv1"]}}, kept)
    assert "(35 in all)" not in found["/lora/target_modules"]
    assert "backbone-block_16_project" in found["/lora/target_modules"]


def test_the_name_of_a_nested_network_stands_for_all_its_layers() -> None:
    trace = traced(applications.Spec(size=[32, 32]), (32, 32, 3))
    inner = [name for name in trace.names if name != "backbone_scaled"]
    assert _layer_choice.frozen(_layer_choice.FreezeSpec(layers=["backbone"]), trace) == inner
    assert _layer_choice.frozen(_layer_choice.FreezeSpec(until_layer="backbone"), trace) == trace.names
    assert _layer_choice.frozen(_layer_choice.FreezeSpec(regex="back.one"), trace) == inner
    kernels = tuple(layer.name for layer in trace.layers if layer.adaptable)
    assert _layer_choice.targets(_layer_choice.LoraSpec(target_modules=["backbone"]), trace) == kernels


def test_a_trunk_or_student_may_be_one_from_random_numbers() -> None:
    distillation = {"kind": "distillation", "dataset": "digits", "teacher": "job:job_1"}
    named = "applications:MobileNetV2"
    for body, field in (
        ({**distillation, "student": named}, "student"),
        ({"kind": "multitask", "dataset": "digits", "tasks": {"digit": {}, "odd": {}}, "trunk": named}, "trunk"),
    ):
        spec = resolve(body)
        assert getattr(spec, field).size == [32, 32]
        assert plain(resolve(plain(spec))) == plain(spec)
    objectives = [{"type": "similarity"}, {"type": "hint"}]
    spec = resolve({**distillation, "student": {"arch": "applications", "alpha": 0.35}, "objectives": objectives})
    assert spec.objectives[0].layers == [["dense1", "backbone-global_average_pooling2d"]]
    assert all(one.startswith("backbone-") for _, one in spec.objectives[1].layers)
    named_whole = [{"type": "similarity", "layers": [["dense1", "backbone"]]}]
    spec = resolve({**distillation, "student": named, "objectives": named_whole})
    assert spec.objectives[0].layers == [["dense1", "backbone"]]
    tasks = {"backbone": {"column": "digit"}}
    assert "/tasks/backbone" in faults({"kind": "multitask", "dataset": "digits", "tasks": tasks, "trunk": named})


# --- jobs

TINY = {"applications": "MobileNetV2", "alpha": 0.35}


def run(body: dict[str, Any], out: Path, change: dict[str, Any] | None = None) -> tuple[Exit, Quiet]:
    told = Quiet()
    code = trainer.run({**trainer.resolved_alone(body), **(change or {})}, out, told, threading.Event())
    return code, told


def written(path: Path, alpha: float = 0.35) -> list[np.ndarray]:
    """A file of weights as Keras writes it, and the numbers in it."""
    import keras

    from worker.training.networks.initial import drawn

    made = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), alpha=alpha, pooling="avg"
    )
    numbers = [array for layer in made.layers for array in drawn(layer, 7, layer.name)]
    made.set_weights(numbers)
    if path.name.endswith(".weights.h5"):
        made.save_weights(path)
    else:  # as the published files are
        import h5py
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, made)
    return numbers


@pytest.mark.slow
def test_a_job_starts_from_a_file_of_weights_trains_a_head_and_says_what_it_cannot_know(
    folder: Path, tmp_path: Path
) -> None:
    import keras

    numbers = written(folder / "tiny.weights.h5")
    body = {
        **BODY,
        "source": {**TINY, "weights": "tiny.weights.h5"},
        "strategy": "feature_extraction",
        "limit_train_examples": 40,
        "training": {"epochs": 2, "batch_size": 20},
    }
    code, told = run(body, tmp_path / "out")
    assert code == Exit.DONE, told.reports[-1]
    model = keras.saving.load_model(tmp_path / "out" / "model.keras", compile=False)
    assert model.input_shape == (None, 28, 28, 1)
    kept = [array for layer in model.layers if layer.name.startswith("backbone-") for array in layer.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(kept, numbers, strict=True))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    sha256 = hashlib.sha256((folder / "tiny.weights.h5").read_bytes()).hexdigest()
    assert report["backbone"] == {**TINY, "size": [32, 32], "weights": "tiny.weights.h5", "sha256": sha256}
    assert report["input"]["seen"] == [32, 32, 3]
    assert report["input"]["channels"] == "repeated"
    assert report["overlap"] == "unknown"
    assert {one.code for one in told.reports if isinstance(one, Warned)} == {"overlap_unknown", "input_adapted"}
    copied = report["inherited"]["copied"]
    assert len(copied) == 104  # 52 kernels, 52 norms
    assert all(ours == theirs for ours, theirs in copied.items())
    card = (tmp_path / "out" / "card.md").read_text()
    assert "MobileNetV2" in card
    assert sha256 in card
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["rows_file"], manifest["canvas"]) == (None, [32, 32, 3])


@pytest.mark.slow
def test_the_older_files_of_weights_are_read_and_those_of_another_network_are_weights_unavailable(
    folder: Path, tmp_path: Path
) -> None:
    from app.spec.models import Backbone
    from worker.training.experiment.run import Borrowed
    from worker.training.methods import _sources
    from worker.training.process.failures import Failure

    class Told:
        borrowed = Borrowed()

        def warn(self, code: str, message: str) -> None:
            assert code == "overlap_unknown"

    numbers = written(folder / FILE.replace("1.0_224", "0.35_224"))
    words = Backbone(applications="MobileNetV2", alpha=0.35, size=[32, 32])
    told: Any = Told()
    found = _sources.of_backbone(told, words, 0)
    assert told.borrowed.overlap_unknown
    read = [array for arrays in found.network.weights.values() for array in arrays]
    assert all(np.array_equal(a, b) for a, b in zip(read, numbers, strict=True))
    written(folder / "wide.h5", alpha=0.5)
    (folder / "none.h5").write_bytes(b"\x89HDF nothing")
    for name in ("wide.h5", "none.h5", "missing.h5"):
        with pytest.raises(Failure) as caught:
            _sources.of_backbone(told, words.model_copy(update={"weights": name}), 0)
        assert (caught.value.code, caught.value.param) == ("weights_unavailable", "/source/weights")
    with pytest.raises(Failure, match="not the one"):
        _sources.of_backbone(told, words.model_copy(update={"sha256": "0" * 64}), 0)
    random = _sources.of_backbone(Told(), words.model_copy(update={"weights": "none"}), 0)  # type: ignore[arg-type]
    assert random.rows is not None
    assert (len(random.rows), random.shapes, random.manifest.sha256) == (0, [], "")


@pytest.mark.slow
@pytest.mark.long
def test_a_student_with_a_backbone_of_random_numbers_is_taught_by_features(tmp_path: Path) -> None:
    body = {
        "kind": "distillation",
        "dataset": "digits",
        "limit_train_examples": 40,
        "teacher": {
            "train": {
                "dataset": "digits",
                "architecture": "cnn-small",
                "limit_train_examples": 50,
                "training": {"steps": 2},
            }
        },
        "student": {"arch": "applications", "alpha": 0.35},
        "objectives": [{"type": "logits"}, {"type": "hint"}],
        "training": {"steps": 2, "batch_size": 20},
    }
    code, told = run(body, tmp_path)
    assert code == Exit.DONE, told.reports[-1]
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["input"]["seen"], report["overlap"]) == ([32, 32, 3], "none")
    assert report["model"]["parameters"] == 410_208 + 12_810


def test_a_file_that_is_gone_when_the_job_runs_fails_it_clearly(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    (folder / FILE).write_bytes(b"numbers")
    job = trainer.resolved_alone(BODY)
    (folder / FILE).unlink()
    told = Quiet()
    assert trainer.run(job, tmp_path / "out", told, threading.Event()) == Exit.FAILED
    (failed,) = [one for one in told.reports if isinstance(one, Failed)]
    assert (failed.code, failed.param) == ("weights_unavailable", "/source/weights")
