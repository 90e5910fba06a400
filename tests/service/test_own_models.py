"""Models of a user's own over HTTP: sent as a .keras file, asked, and used as source, teacher and student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.data import builtins
from tests import plain_keras
from tests.service.conftest import Service
from worker.training.kept import golden as golden_rows

pytestmark = pytest.mark.slow

_NETWORK = """
import json, keras, numpy as np
from keras import layers as L
keras.utils.set_random_seed(1)
inner = keras.Sequential(name="inner", layers=[
    keras.Input((28, 28, 8)), L.Conv2D(16, 3, strides=2, name="b"), L.BatchNormalization(momentum=0.8), L.ReLU(),
])
x = keras.Input((28, 28, 1), name="picture")
y = L.Conv2D(8, 3, padding="same", activation="relu", name="a")(L.Rescaling(2.0, -1.0)(x))
y = inner(y)
shared = L.Conv2D(16, 3, padding="same", activation="relu", name="twice")
y = L.Add()([y, shared(shared(y))])
y = L.Dropout(0.1)(L.GlobalAveragePooling2D()(y))
model = keras.Model(x, L.Dense(10, activation="softmax", name="said")(y))
images, labels = (np.load(name) for name in ("images.npy", "labels.npy"))
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images / 255.0, labels, batch_size=32, epochs=15, verbose=0)
model.save("mine.keras")
features = keras.Model(x, y).predict(images[:5] / 255.0, verbose=0)
np.save("features.npy", features)
print(json.dumps(model.predict(images[:5] / 255.0, verbose=0).tolist()))
"""

_BAD = """
import keras
from keras import layers as L
model = keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x * 2), L.Dense(2, activation="softmax")])
model.save("bad.keras")
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[list[float]], np.ndarray]:
    """A network that a user trained on some digits, and its own answers to the first five, and what its last layer stood on then."""
    folder = tmp_path_factory.mktemp("mine")
    digits = builtins.load("digits")
    some = np.arange(600)
    np.save(folder / "images.npy", digits.inputs[some].astype(np.float32))
    np.save(folder / "labels.npy", digits.columns["digit"][some])
    said = plain_keras.run(_NETWORK, folder)
    return (folder / "mine.keras").read_bytes(), json.loads(said.splitlines()[-1]), np.load(folder / "features.npy")


def send(service: Service, content: bytes, **fields: str) -> httpx.Response:
    return service.post("/v1/models", files={"file": ("mine.keras", content)}, data=fields, timeout=120)


def finished(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    sent = service.post("/v1/jobs", body)
    assert sent.status_code == 202, sent.text
    job = service.finished(sent.json()["id"])
    assert job["state"] == "succeeded", job["error"]
    report: dict[str, Any] = service.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    return report


def test_a_model_of_one_s_own_is_sent_asked_and_used_everywhere(
    service: Service, mine: tuple[bytes, list[list[float]], np.ndarray]
) -> None:
    content, own, _ = mine
    names = ",".join(builtins.load("digits").schema.columns["digit"].classes or [])
    sent = send(service, content, name="mine", classes=names, scale="0..1")
    assert sent.status_code == 201, sent.text
    model = sent.json()
    assert (model["job"], model["role"], model["ref"]) == (None, "imported", "model:mine@1")
    assert model["manifest"]["origin"]["file"] == "mine.keras"
    again = send(service, content, name="mine", classes=names, scale="0..1")
    assert (again.status_code, again.json()["id"]) == (200, model["id"])
    rows = builtins.load("digits").inputs[np.arange(5)].tolist()
    told = service.post(f"/v1/models/{model['id']}/predict", {"inputs": rows}).raise_for_status().json()
    for answer, expected in zip(told["predictions"], own, strict=True):
        probabilities = answer["said"]["probabilities"]
        assert [probabilities[name] for name in names.split(",")] == pytest.approx(expected, abs=1e-5)

    other = model["manifest"]["architecture"]
    other["layers"]["dropout"]["config"]["rate"] = 0.5
    small = {"training": {"steps": 10, "batch_size": 16}, "control": {"seeds": 0}, "limit_train_examples": 64}
    transfer = {"kind": "transfer", "dataset": "digits", "source": "model:mine", **small}
    for strategy in (
        {"strategy": "fine_tuning", "learning_rates": {"decay": 2.6}, "regularizer": "l2_sp"},
        {"strategy": "feature_extraction", "cache_features": True},
        {"strategy": "gradual_unfreezing"},
        {"strategy": "lora"},
        {"strategy": "initialize", "architecture": other},
    ):
        report = finished(service, {**transfer, **strategy})
        assert report["overlap"] == "unknown", strategy
    distilled = {
        "kind": "distillation",
        "dataset": "digits",
        "teachers": ["model:mine"],
        "student": "cnn-small",
        **small,
    }
    assert finished(service, distilled)["overlap"] == "unknown"
    assert service.get(f"/v1/models/{model['id']}").json()["manifest"]["origin"]["notes"]

    refused = service.request("DELETE", f"/v1/models/{model['id']}")
    assert refused.status_code == 409
    assert "Still needed by" in refused.json()["detail"]


def test_readings_are_tried_on_labelled_rows(service: Service, mine: tuple[bytes, list[list[float]]]) -> None:
    model = send(service, mine[0], name="tried", dataset="digits").raise_for_status().json()
    origin = model["manifest"]["origin"]
    probes = {probe["scale"]: probe["accuracy"] for probe in origin["probes"] if probe["classes"] == "as given"}
    assert set(probes) == {"0..255", "0..1", "-1..1"}
    assert max(probes, key=lambda scale: probes[scale]) == "0..1"
    assert probes["0..1"] > 0.6
    assert any("with 0..1" in note for note in origin["notes"])
    assert list(model["manifest"]["tasks"]) == ["digit"]
    assert service.request("DELETE", f"/v1/models/{model['id']}").status_code == 204
    assert service.get(f"/v1/models/{model['id']}").status_code == 404


def test_a_trunk_without_heads_is_a_source_and_answers_its_features(
    service: Service, mine: tuple[bytes, list[list[float]], np.ndarray], tmp_path: Path
) -> None:
    trunk = send(service, mine[0], name="trunk", classes="none", scale="0..1").raise_for_status().json()
    assert trunk["manifest"]["tasks"] == {}
    rows = builtins.load("digits").inputs[np.arange(5)]
    told = service.post(f"/v1/models/{trunk['id']}/predict", {"inputs": rows.tolist()}).raise_for_status().json()
    assert [list(answer) for answer in told["predictions"]] == [["features"]] * 5
    vectors = np.array([answer["features"]["vector"] for answer in told["predictions"]])
    np.testing.assert_allclose(vectors, mine[2], atol=1e-5)
    # The digits as a data set, a line for each row: the same numbers.
    answer = service.post(f"/v1/models/{trunk['id']}/predict", {"dataset": "digits"}, timeout=120).raise_for_status()
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == len(builtins.load("digits"))
    np.testing.assert_allclose([line["features"]["vector"] for line in lines[:5]], vectors, atol=1e-5)
    kept = tmp_path / "trunk.keras"
    kept.write_bytes(service.get(f"/v1/models/{trunk['id']}/file").content)
    golden = golden_rows.read(kept)
    assert golden is not None
    assert golden.answers["features"].shape == (5, 16)
    body = {
        "kind": "transfer",
        "dataset": "digits",
        "source": trunk["id"],
        "training": {"steps": 5},
        "control": {"seeds": 0},
    }
    assert finished(service, {**body, "limit_train_examples": 64})["overlap"] == "unknown"


def test_what_is_refused_is_said_with_a_way_out(service: Service, tmp_path: Path) -> None:
    plain_keras.run(_BAD, tmp_path)
    bad = send(service, (tmp_path / "bad.keras").read_bytes(), classes="a,b")
    assert bad.status_code == 422
    assert bad.json()["type"].endswith("model_invalid")
    (fault,) = bad.json()["errors"]
    assert "it holds code" in fault["hint"]
    wrong = send(service, b"no model", classes="a", scale="bright", size="9", nonsense="1")
    assert wrong.status_code == 422
    assert {fault["pointer"] for fault in wrong.json()["errors"]} == {"/scale", "/size", "/nonsense"}


_JSON = """
import keras
from keras import layers as L
model = keras.Sequential([
    keras.Input((28, 28, 1)), L.Conv2D(8, 3, activation="gelu", name="first"), L.GlobalMaxPooling2D(), L.Dense(10, activation="softmax"),
])
print(model.to_json())
"""


def test_a_network_in_keras_s_json_is_an_architecture_of_a_job(service: Service, tmp_path: Path) -> None:
    answer = service.post("/v1/architectures", json.loads(plain_keras.run(_JSON, tmp_path).splitlines()[-1]))
    assert answer.status_code == 200, answer.text
    architecture = answer.json()["architecture"]
    assert (architecture["arch"], architecture["features"], next(iter(architecture["layers"]))) == (
        "keras-graph",
        "global_max_pooling2d",
        "first",
    )
    body = {
        "kind": "distillation",
        "dataset": "digits",
        "teachers": [{"train": {"dataset": "digits", "training": {"steps": 5}}}],
        "student": architecture,
        "training": {"steps": 5},
        "control": {"seeds": 0},
        "limit_train_examples": 64,
    }
    finished(service, body)
    wrong = service.post("/v1/architectures", {"class_name": "Sequential", "config": {"layers": 3}})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["hint"]


def test_the_file_of_a_model_is_its_own_to_download(
    service: Service, mine: tuple[bytes, list[list[float]]], tmp_path: Path
) -> None:
    names = ",".join(builtins.load("digits").schema.columns["digit"].classes or [])
    model = send(service, mine[0], name="downloaded", classes=names, scale="0..1").raise_for_status().json()
    file = service.get(model["links"]["file"]).raise_for_status()
    assert file.headers["etag"] == f'"{model["sha256"]}"'
    (tmp_path / "model.keras").write_bytes(file.content)
    np.save(tmp_path / "rows.npy", builtins.load("digits").inputs[np.arange(5)].astype(np.float32))
    program = (
        "import json, keras, numpy as np\n"
        "answers = keras.saving.load_model('model.keras').predict(np.load('rows.npy'), verbose=0)\n"
        "print(json.dumps(answers['said'].tolist()))"
    )
    for backend in ("tensorflow", "jax"):
        told = json.loads(plain_keras.run(program, tmp_path, backend=backend).splitlines()[-1])
        assert np.array(told) == pytest.approx(np.array(mine[1]), abs=1e-5)
    part = service.get(model["links"]["file"], headers={"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, file.content[:10])
