"""A network that sees texts in tokens of a vocabulary of its own: sent, a job's source, served and exported with its tokenizer."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from app import client
from app.data import messages, tokens
from app.pretrained import conversion
from app.pretrained.table import TABLE
from tests.app.pretrained import published
from tests.service import alone
from tests.service.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

NAME = "minilm-l6"
SOURCE = f"pretrained:{NAME}"
JOB: dict[str, Any] = {
    "kind": "transfer",
    "source": SOURCE,
    "limit_train_examples": {"per_class": 4},
    "training": {"steps": 4},
    "control": {"seeds": 0},
}


@pytest.fixture
def sent(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service has a small network of that name."""
    file = tmp_path / "model.zip"
    file.write_bytes(published.minilm(np.random.default_rng(0)))
    entry = replace(TABLE[NAME], sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(conversion, "TABLE", {NAME: entry})
    out = io.StringIO()
    code = client.add_pretrained(NAME, service.address, Console(file=out, width=250), size=None, file=file)
    assert code == 0, out.getvalue()
    assert entry.licence in out.getvalue()


def dataset(service: Service) -> str:
    """Texts as long as the longest of them."""
    texts, topic, _ = messages.make(160)
    lines = "\n".join(f'"{text}",{messages.TOPICS[number]}' for text, number in zip(texts, topic, strict=True))
    answer = service.post(
        "/v1/datasets",
        files={"file": ("mails.csv", f"body,topic\n{lines}")},
        data={"inputs": "body:text", "targets": "topic"},
    )
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def test_texts_start_from_a_sentence_encoder(service: Service, sent: None, tmp_path: Path) -> None:
    source = service.get(f"/v1/models/{SOURCE}").raise_for_status().json()["manifest"]
    seen = source["input"]["tokens"]
    assert (seen["type"], seen["vocabulary"], seen["length"]) == ("wordpiece", len(published.VOCABULARY), 128)
    own = dataset(service)
    assert service.get(f"/v1/datasets/{own}").json()["schema"]["input"]["shape"] != source["input"]["shape"]
    ids = {
        strategy: service.post("/v1/jobs", {**JOB, "dataset": own, "strategy": strategy})
        .raise_for_status()
        .json()["id"]
        for strategy in ("fine_tuning", "lora")
    }
    for strategy, job in ids.items():
        ended = service.finished(job)
        assert ended["state"] == "succeeded", (strategy, ended["error"])
    manifest = service.get(f"/v1/models/job:{ids['fine_tuning']}").json()["manifest"]
    assert manifest["input"]["tokens"] == seen
    report = service.get(f"/v1/jobs/{ids['fine_tuning']}/report").json()
    assert "word_embedding" in report["inherited"]["copied"]

    job, texts = ids["fine_tuning"], ["so the parcel has not begun", "", "Ünïcode " * 40, "[SEP]"]
    archive = zipfile.ZipFile(io.BytesIO(service.get(f"/v1/jobs/{job}/artifacts.zip").raise_for_status().content))
    content = archive.read(f"{job}/tokenizer.json").decode()
    assert hashlib.sha256(content.encode()).hexdigest() == seen["sha256"]
    assert f"{job}/preprocess.py" in archive.namelist()
    (bytes_,) = manifest["input"]["shape"]
    np.save(tmp_path / "rows.npy", tokens.ids(texts, tokens.opened(content), bytes=bytes_, length=128))
    asked = service.post(f"/v1/models/job:{job}/predict", {"inputs": texts}).raise_for_status().json()["predictions"]
    for answers in alone.on_rows(service, job, tmp_path):
        for number, entry in enumerate(asked):
            served = list(entry["topic"]["probabilities"].values())
            np.testing.assert_allclose(answers["topic"][number], served, atol=1e-5)
    heir = {**JOB, "dataset": own, "source": f"job:{job}", "strategy": "feature_extraction"}
    ended = service.finished(service.post("/v1/jobs", heir).raise_for_status().json()["id"])
    assert ended["state"] == "succeeded", ended["error"]


def test_what_such_a_network_cannot_do_is_said(service: Service, sent: None) -> None:
    def faults(body: dict[str, Any]) -> list[tuple[str, str]]:
        answer = service.post("/v1/jobs", body)
        assert answer.status_code == 422, answer.text
        return [(fault["pointer"], fault["message"]) for fault in answer.json()["errors"]]

    own = dataset(service)
    told = faults({**JOB, "dataset": "bookings", "target": "tags", "limit_train_examples": 20})
    assert told[0][0] == "/source"
    assert told[0][1].startswith("the tags task 'tags' is not for a network that sees tokens")
    told = faults({**JOB, "dataset": own, "target": "next_token", "limit_train_examples": 20})
    assert "leave out case, accents and blanks" in told[0][1]
    architecture = service.get(f"/v1/models/{SOURCE}").json()["manifest"]["architecture"]
    alone_ = {
        "kind": "multitask",
        "dataset": own,
        "tasks": {"topic": {}},
        "trunk": json.loads(json.dumps(architecture)),
    }
    assert faults(alone_) == [("/trunk/tokens", "the network sees texts in a vocabulary that no model of this job has")]
    assert faults({**JOB, "dataset": "digits"})[0][0] == "/source"
    taught = {
        "kind": "distillation",
        "dataset": own,
        "teacher": {"train": {"dataset": own}},
        "student": architecture,
        "training": {"steps": 2},
    }
    assert ("/student/tokens", "the network sees texts in a vocabulary that no model of this job has") in faults(taught)
