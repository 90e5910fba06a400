"""Models from a file or a folder on the service's machine: the words of the form in JSON, faults where they stand, nothing left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from app import inference
from app.errors import Problem
from app.model_files import rehearsal
from app.settings import settings
from app.spec.adopted import Order
from tests.app.api.conftest import pointers, problem
from tests.app.pretrained import folders

Send = Callable[..., httpx.Response]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: httpx.Client) -> Path:
    """A folder that is open, with a model's folder, a `.keras` file and weights alone."""
    home = tmp_path / "open"
    (home / "bert").mkdir(parents=True)
    for name, content in folders.parts("bert-classes").items():
        (home / "bert" / name).write_bytes(content)
    (home / "bert/tf_model.h5").write_bytes(bytes(2**20))
    (home / "tiny.keras").write_bytes(rehearsal.model())
    (home / "tiny.weights.h5").write_bytes(rehearsal.weights())
    monkeypatch.setattr(settings(), "file_roots", (home,))
    return home


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """What the inference program would have been told, which does not answer here."""
    orders = list[Order]()

    def write(order: Order) -> None:
        orders.append(order)
        raise Problem("inference_unavailable", "not here")

    monkeypatch.setattr(inference, "write", write)
    return orders


@pytest.fixture
def send(client: httpx.Client, root: Path) -> Send:
    def post(beneath: str, **fields: Any) -> httpx.Response:
        return client.post("/v1/models", json={"uri": f"file://{root}/{beneath}", **fields})

    return post


def left() -> list[str]:
    return [path.name for path in (settings().store / "tmp").iterdir() if not path.name.startswith("pytest-of")]


def test_a_folder_comes_as_far_as_the_inference_program(send: Send, ordered: list[Order]) -> None:
    problem(send("bert"), 503, "inference_unavailable")
    problem(send("bert", name="mine", classes=["a", "b", "c"], target="mood"), 503, "inference_unavailable")
    found, named = (order.candidates[0] for order in ordered)
    assert [head.manifest.classes for head in found.heads] == [["bad", "fair", "good"]]
    assert [(head.task, head.manifest.classes) for head in named.heads] == [("mood", ["a", "b", "c"])]
    assert found.architecture.tokens is not None
    assert found.architecture.tokens.length == 12
    assert [order.origin.file for order in ordered] == ["bert", "bert"]
    assert left() == []


def test_files_come_as_they_do_in_a_form(send: Send, ordered: list[Order]) -> None:
    problem(send("tiny.keras", columns=["a", "b"]), 503, "inference_unavailable")
    mlp = {"arch": "mlp", "units": [2]}
    problem(send("tiny.weights.h5", architecture=mlp, shape=[2], classes="none"), 503, "inference_unavailable")
    assert [order.weights is None for order in ordered] == [True, False]
    assert left() == []


def test_a_folder_that_is_no_model_is_refused_at_its_uri(send: Send, root: Path) -> None:
    body = problem(send("."), 422, "model_invalid")
    assert pointers(body) == {"/uri"}
    assert "model.safetensors" in body["errors"][0]["message"]
    (root / "bert/config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert pointers(problem(send("bert"), 422, "model_invalid")) == {"/uri/config.json/model_type"}
    assert pointers(problem(send("nothing"), 422, "model_invalid")) == {"/uri"}
    (root / "bert/model.safetensors").unlink()
    (root / "bert/model.safetensors").symlink_to("/etc/passwd")
    assert pointers(problem(send("bert"), 422, "model_invalid")) == {"/uri"}
    assert left() == []


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"uri": 7}, {"/uri"}),
        ({"uri": "http://127.0.0.1/x"}, {"/uri"}),
        ({"file": "x"}, {"/file"}),
        ({"scale": "0..2", "size": [8, 8], "name": 3}, {"/scale", "/size", "/name"}),
        ({"shape": [2], "partial": True}, {"/shape", "/partial"}),
        ({"architecture": "resnet-99x", "shape": "2"}, {"/architecture", "/shape"}),
        ({"size": "0x9", "nmae": "x"}, {"/size", "/nmae"}),
        ({"architecture": "resnet-20", "size": "8x8", "output": "x"}, {"/size", "/output"}),
    ],
)
def test_all_faults_of_a_body_are_told_at_once(
    fields: dict[str, Any], found: set[str], client: httpx.Client, root: Path
) -> None:
    body = problem(client.post("/v1/models", json={"uri": f"file://{root}/bert", **fields}), 422, "invalid")
    assert pointers(body) == found


def test_a_folder_of_words_takes_no_size(send: Send) -> None:
    assert pointers(problem(send("bert", size="32x32"), 422, "invalid")) == {"/size"}


def test_the_document_has_both_bodies(client: httpx.Client) -> None:
    content = client.get("/openapi.json").json()["paths"]["/v1/models"]["post"]["requestBody"]["content"]
    form, other = (content[kind]["schema"] for kind in ("multipart/form-data", "application/json"))
    assert set(other["properties"]) == set(form["properties"]) - {"file", "weights"} | {"uri"}
    jsonschema.validate({"uri": "file:///models/bert", "classes": ["a"], "size": "8x8"}, other)
    for body in ({}, {"uri": "http://x"}, {"uri": "file:///x", "size": [8, 8]}, {"uri": "file:///x", "heads": 3}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body, other)
