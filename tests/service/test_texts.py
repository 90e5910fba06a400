"""Texts from a table to a served answer: the downloaded model alone gives the same one for the bytes of the text."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from app.data import messages
from tests.service.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]


def mails(count: int) -> bytes:
    texts, topic, mood = messages.make(count)
    lines = [
        f'"{text}",{messages.TOPICS[t]},{messages.MOODS[m]}' for text, t, m in zip(texts, topic, mood, strict=True)
    ]
    return "\n".join(["body,topic,mood", *lines]).encode()


def test_texts_are_learnt_served_and_answered_alike(service: Service, tmp_path: Path) -> None:
    answer = httpx.post(
        f"{service.address}/v1/datasets",
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
