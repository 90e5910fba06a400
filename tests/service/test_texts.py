"""Texts from a table to a served answer: the downloaded model alone gives the same one for the bytes of the text."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from app.data import messages, tokens
from app.spec.tasks import TokenRow, next_token
from tests.service import alone
from tests.service.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]


def mails(count: int) -> bytes:
    texts, topic, mood = messages.make(count)
    lines = [
        f'"{text}",{messages.TOPICS[t]},{messages.MOODS[m]}' for text, t, m in zip(texts, topic, mood, strict=True)
    ]
    return "\n".join(["body,topic,mood", *lines]).encode()


def test_texts_are_learnt_served_and_answered_alike(service: Service, tmp_path: Path) -> None:
    answer = service.post(
        "/v1/datasets",
        files={"file": ("mails.csv", mails(300))},
        data={"inputs": "body:text", "targets": "topic,mood", "length": "128"},
    )
    assert answer.status_code == 201, answer.text
    dataset = answer.json()["id"]
    shown = service.get(f"/v1/datasets/{dataset}/preview?rows=2").raise_for_status().json()["rows"]
    assert shown[0]["input"] == messages.make(300)[0][0]
    body = {
        "kind": "multitask",
        "dataset": dataset,
        "tasks": {"topic": {}, "mood": {}},
        "trunk": "text-cnn-small",
        "training": {"steps": 30, "augmentation": [{"type": "token_dropout", "rate": 0.05}]},
    }
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]

    texts = ["the parcel has not arrived", "", "Ünïcode " * 40]
    asked = service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": texts}).raise_for_status().json()
    wrong = service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": ["a", 3]})
    assert [error["pointer"] for error in wrong.json()["errors"]] == ["/inputs/1"]

    import keras

    (tmp_path / "model.keras").write_bytes(service.get(f"/v1/jobs/{job['id']}/artifacts/model.keras").content)
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    rows = np.zeros((3, 128), np.float32)
    for row, text in zip(rows, texts, strict=True):
        cut = text.encode()[:128].decode(errors="ignore").encode()
        row[: len(cut)] = list(cut)
    answers = model.predict_on_batch(rows)
    for number, entry in enumerate(asked["predictions"]):
        served = list(entry["topic"]["probabilities"].values())
        assert np.abs(np.asarray(answers["topic"])[number] - served).max() < 1e-5


def answered_alike(service: Service, job_id: str, content: str, folder: Path) -> None:
    """The service's answers to texts are those of the downloaded model, on each backend, to the ids of their tokens."""
    texts = ["the parcel has not arrived", "", "Ünïcode " * 40, "<pad>"]
    asked = service.post(f"/v1/models/job:{job_id}/predict", {"inputs": texts}).raise_for_status().json()["predictions"]
    tokenizer = tokens.opened(content)
    pieces = tokens.pieces(content)
    rows = tokens.ids(texts, tokenizer, bytes=96, length=32)
    np.save(folder / "rows.npy", rows)
    for answers in alone.on_rows(service, job_id, folder):
        for number, entry in enumerate(asked):
            served = list(entry["topic"]["probabilities"].values())
            assert np.abs(np.asarray(answers["topic"][number]) - served).max() < 1e-5
            told = next_token.prediction(answers["next_token"][number], (), TokenRow(rows[number].tolist(), pieces))
            if told["bits_per_byte"] is not None:
                assert told["bits_per_byte"] == pytest.approx(entry["next_token"]["bits_per_byte"], abs=1e-4)
            assert [one["token"] for one in told["next"][:1]] == [
                one["token"] for one in entry["next_token"]["next"][:1]
            ]


def test_texts_in_tokens_are_answered_as_the_downloaded_files_answer(service: Service, tmp_path: Path) -> None:
    answer = service.post(
        "/v1/datasets",
        files={"file": ("mails.csv", mails(300))},
        data={"inputs": "body:text", "targets": "topic", "length": "96"},
    )
    assert answer.status_code == 201, answer.text
    dataset = answer.json()["id"]
    trunk = {"arch": "causal-transformer-small", "dim": 16, "tokens": {"type": "bpe", "vocabulary": 400, "length": 32}}
    body = {
        "kind": "multitask",
        "dataset": dataset,
        "tasks": {"topic": {}, "next_token": {}},
        "trunk": trunk,
        "split": {"by": "random"},
        "training": {"steps": 20, "batch_size": 32},
        "control": {"seeds": 0},
    }
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]
    url = f"/v1/models/job:{job['id']}"
    manifest = service.get(url).raise_for_status().json()["manifest"]
    assert manifest["input"]["shape"] == [96]
    assert manifest["input"]["tokens"]["length"] == 32
    archive = zipfile.ZipFile(io.BytesIO(service.get(f"/v1/jobs/{job['id']}/artifacts.zip").raise_for_status().content))
    files = {
        name: archive.read(f"{job['id']}/{name}")
        for name in ("model.keras", "manifest.json", "preprocess.py", tokens.FILE)
    }
    assert hashlib.sha256(files[tokens.FILE]).hexdigest() == manifest["input"]["tokens"]["sha256"]

    answered_alike(service, job["id"], files[tokens.FILE].decode(), tmp_path)
    transfer = {
        "kind": "transfer",
        "dataset": dataset,
        "target": "topic",
        "source": f"job:{job['id']}",
        "split": {"by": "random"},
        "training": {"steps": 5},
    }
    job = service.finished(service.post("/v1/jobs", transfer).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]
    target = service.get(f"/v1/models/job:{job['id']}").raise_for_status().json()["manifest"]
    assert target["input"]["tokens"] == manifest["input"]["tokens"]
    url = f"/v1/models/job:{job['id']}"
    lines = service.post(f"{url}/predict", {"dataset": dataset}).raise_for_status().text.splitlines()
    assert len(lines) == 300
    first = json.loads(lines[0])
    again = service.post(f"{url}/predict", {"inputs": [messages.make(300)[0][0]]}).raise_for_status().json()
    assert first["topic"]["probability"] == pytest.approx(again["predictions"][0]["topic"]["probability"], abs=1e-5)

    shown = service.get(f"/v1/datasets/{dataset}").raise_for_status().json()
    assert "tokens" not in shown["schema"]["input"]


def test_faults_of_tokens_are_answered_by_name(service: Service) -> None:
    body = {"kind": "multitask", "dataset": "messages", "tasks": {"topic": {}}}
    trunk = {"arch": "text-cnn", "tokens": {"type": "bpe", "vocabulary": 100, "length": 0, "merges": 3}}
    answer = service.post("/v1/jobs", {**body, "trunk": trunk})
    assert answer.status_code == 422
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert pointers == {f"/trunk/tokens/{name}" for name in ("vocabulary", "length", "merges")}
    tagged = {
        "kind": "multitask",
        "dataset": "bookings",
        "tasks": {"tags": {}},
        "trunk": {"arch": "text-encoder", "tokens": {}},
    }
    (fault,) = service.post("/v1/jobs", tagged).json()["errors"]
    assert (fault["pointer"], fault["code"]) == ("/trunk/tokens", "not_applicable")
    assert "leave `tokens` out" in fault["hint"]
