"""A language model of the texts of an upload, served, and by the downloaded model on both backends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.data import messages
from app.data.inputs import text
from app.spec.tasks import next_token
from tests.service import alone
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

TEXT = "A short note from a cust"


def test_a_language_model_beside_a_class_is_served_as_it_answers_anywhere(service: Service, tmp_path: Path) -> None:
    texts, topics, _ = messages.make(200)
    rows = [f'"{words}",{messages.TOPICS[topic]}' for words, topic in zip(texts, topics, strict=True)]
    content = "\n".join(["body,topic", *rows]).encode()
    fields = {"inputs": "body:text", "targets": "topic", "length": "96"}
    sent = service.post("/v1/datasets", files={"file": ("x.csv", content)}, data=fields)
    assert sent.status_code == 201, sent.text
    assert "next_token" not in sent.json()["schema"]["columns"]
    body = {
        "kind": "multitask",
        "dataset": sent.json()["id"],
        "tasks": {"next_token": {}, "topic": {}},
        "trunk": "causal-transformer-small",
        "training": {"steps": 20, "batch_size": 32},
        "control": {"seeds": 0},
    }
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]
    report = service.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    assert report["tasks"]["next_token"]["bits_per_byte"] < 6
    assert report["baselines"]["next_token"]["linear"]["value"] < report["baselines"]["next_token"]["constant"]["value"]
    url = f"/v1/models/job:{job['id']}/predict"
    (answer,) = service.post(url, {"inputs": [TEXT]}).raise_for_status().json()["predictions"]
    own = text.rows([TEXT], 96)
    np.save(tmp_path / "rows.npy", own.astype(np.float32))
    for answers in alone.on_rows(service, job["id"], tmp_path):
        told = next_token.prediction(answers["next_token"][0], (), own[0])
        assert told["bits_per_byte"] == pytest.approx(answer["next_token"]["bits_per_byte"], abs=1e-4)
        assert told["next"][0]["byte"] == answer["next_token"]["next"][0]["byte"]
    refused = service.post(url, {"inputs": [TEXT] * 400})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["hint"] == "send at most 341 rows at once"


def test_a_network_that_looks_ahead_is_refused_in_a_sentence(service: Service) -> None:
    body = {"kind": "multitask", "dataset": "messages", "tasks": {"next_token": {}}, "trunk": "text-encoder"}
    answer = service.post("/v1/jobs", body)
    assert answer.status_code == 422
    faults = {fault["code"]: fault for fault in answer.json()["errors"]}
    assert "causal-transformer" in faults["not_causal"]["hint"]
