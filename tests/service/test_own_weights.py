"""Weights alone for a named architecture over HTTP: sent, asked, used as a source, and refused with every array by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.data import builtins
from tests import plain_keras
from tests.app.pretrained.published import safetensors
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

_NETWORK = """
import json, keras, numpy as np
from keras import layers as L
keras.utils.set_random_seed(1)
x = keras.Input((28, 28, 1), name="picture")
y = L.MaxPooling2D()(L.Conv2D(4, 3, activation="relu", name="conv1")(x))
y = L.Flatten()(L.Conv2D(8, 3, activation="relu", name="conv2")(y))
y = L.Dense(16, activation="relu", name="dense1")(y)
model = keras.Model(x, L.Dense(10, activation="softmax", name="said")(y))
images, labels = (np.load(name) for name in ("images.npy", "labels.npy"))
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images / 255.0, labels, batch_size=32, epochs=15, verbose=0)
model.get_layer("conv1").kernel.assign(model.get_layer("conv1").kernel / 255.0)  # the same network, on pixels of 0 to 255
model.save_weights("mine.weights.h5")
np.savez("arrays.npz", **{variable.path: variable.numpy() for variable in model.weights})
print(json.dumps(model.predict(images[:5], verbose=0).tolist()))
"""
ARCHITECTURE = {"arch": "cnn-small", "filters": [4, 8], "dense": 16}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[float]]]:
    """The weights of a network that a user trained on some digits, on pixels of 0 to 255, and its answers to the first five."""
    folder = tmp_path_factory.mktemp("mine")
    digits = builtins.load("digits")
    np.save(folder / "images.npy", digits.inputs[np.arange(600)].astype(np.float32))
    np.save(folder / "labels.npy", digits.columns["digit"][np.arange(600)])
    return folder, json.loads(plain_keras.run(_NETWORK, folder).splitlines()[-1])


def send(service: Service, content: bytes, name: str = "bare.weights.h5", **fields: Any) -> httpx.Response:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
    return service.post("/v1/models", files={"weights": (name, content)}, data=texts, timeout=120)


def test_weights_are_sent_asked_and_a_source(service: Service, mine: tuple[Path, list[list[float]]]) -> None:
    folder, own = mine
    content, names = (
        (folder / "mine.weights.h5").read_bytes(),
        builtins.load("digits").schema.columns["digit"].classes or [],
    )
    said = {"architecture": ARCHITECTURE, "shape": "28x28x1", "classes": ",".join(names), "scale": "0..255"}
    sent = send(service, content, **said)
    assert sent.status_code == 201, sent.text
    model = sent.json()
    assert (model["name"], model["role"], model["ref"]) == ("bare", "imported", "model:bare@1")
    report = model["manifest"]["origin"]["weights"]
    assert {array["variable"]: array["by"] for array in report["matched"]} == {
        **{f"{layer}/{part}": "name" for layer in ("conv1", "conv2", "dense1") for part in ("kernel", "bias")},
        **{f"class_logits/{part}": "order" for part in ("kernel", "bias")},
    }
    assert not report["unmatched_in_file"] + report["unmatched_in_network"] + report["of_another_shape"]
    again = send(service, content, **said)
    assert (again.status_code, again.json()["id"]) == (200, model["id"])
    other = send(service, content, **{**said, "architecture": {**ARCHITECTURE, "dropout": 0.5}})
    assert (other.status_code, other.json()["ref"]) == (201, "model:bare@2")
    rows = builtins.load("digits").inputs[np.arange(5)].tolist()
    told = service.post(f"/v1/models/{model['id']}/predict", {"inputs": rows}).raise_for_status().json()
    for answer, expected in zip(told["predictions"], own, strict=True):
        assert [answer["class"]["probabilities"][name] for name in names] == pytest.approx(expected, abs=1e-5)
    small = {"training": {"steps": 5, "batch_size": 16}, "control": {"seeds": 0}, "limit_train_examples": 64}
    submitted = service.post("/v1/jobs", {"kind": "transfer", "dataset": "digits", "source": model["id"], **small})
    assert submitted.status_code == 202, submitted.text
    job = service.finished(submitted.json()["id"])
    assert job["state"] == "succeeded", job["error"]
    assert service.get(f"/v1/jobs/{job['id']}/report").json()["overlap"] == "unknown"
    assert service.get(f"/v1/models/{model['id']}/file").status_code == 200


def test_scales_are_tried_and_safetensors_taken(service: Service, mine: tuple[Path, list[list[float]]]) -> None:
    with np.load(mine[0] / "arrays.npz") as stored:
        arrays = dict(stored.items())
    sent = send(service, safetensors(arrays), "tried.safetensors", architecture=ARCHITECTURE, dataset="digits")
    assert sent.status_code == 201, sent.text
    manifest = sent.json()["manifest"]
    probes = {
        probe["scale"]: probe["accuracy"] for probe in manifest["origin"]["probes"] if probe["classes"] == "as given"
    }
    assert probes["0..255"] == max(probes.values()) > 0.6
    assert list(manifest["tasks"]) == ["digit"]
    trunk = {name: array for name, array in arrays.items() if not name.startswith("said")}
    said = {"architecture": ARCHITECTURE, "shape": "28x28x1", "scale": "0..1", "classes": "none"}
    sent = send(service, safetensors(trunk), "trunk.safetensors", **said)
    assert sent.status_code == 201, sent.text
    assert (sent.json()["manifest"]["tasks"], sent.json()["manifest"]["architecture"]["arch"]) == ({}, "cnn-small")


def test_what_does_not_match_is_named_and_partial_weights_are_taken_where_they_are_meant(
    service: Service, mine: tuple[Path, list[list[float]]]
) -> None:
    content = (mine[0] / "mine.weights.h5").read_bytes()
    said = {"architecture": {**ARCHITECTURE, "dense": 12}, "shape": "28x28x1", "classes": "a,b,c", "scale": "0..1"}
    refused = send(service, content, **said)
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("model_invalid")
    assert {fault["pointer"] for fault in refused.json()["errors"]} == {"/weights"}
    assert any("the network's dense1/kernel 968×12" in fault["message"] for fault in refused.json()["errors"])
    sent = send(service, content, **said, partial="true", seed="3")
    assert sent.status_code == 201, sent.text
    report = sent.json()["manifest"]["origin"]["weights"]
    assert [array["variable"] for array in report["of_another_shape"]] == [
        "dense1/kernel", "dense1/bias", "class_logits/kernel", "class_logits/bias",
    ]  # fmt: skip
    open_ = send(service, content, architecture="cnn-smal", partial="perhaps", size="28x28")
    assert open_.status_code == 422
    assert {fault["pointer"] for fault in open_.json()["errors"]} == {"/architecture", "/partial", "/size"}
    unsaid = send(service, content, architecture=ARCHITECTURE)
    assert {fault["pointer"] for fault in unsaid.json()["errors"]} == {"/shape", "/classes"}
    pickle = send(service, b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}", **said)
    assert "safetensors.torch.save_file" in pickle.json()["errors"][0]["hint"]
