"""Tagged texts from a file to an answer: served, and by the downloaded model on both backends, alone and beside a class of the text."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.data import bookings
from app.data.inputs import text
from app.spec.tasks import tags
from tests.service import alone
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

TEXT = "please book a table for Ada Novak in Bonn on Monday"
FEW = {"steps": 30, "batch_size": 32}


def conll(count: int) -> bytes:
    sentences, tags_, _ = bookings.make(count)
    rows = [
        "".join(f"{token}\t{tag}\n" for token, tag in zip(*row, strict=True))
        for row in zip(sentences, tags_, strict=True)
    ]
    return "\n".join(rows).encode()


def upload(service: Service, name: str, content: bytes, **fields: str) -> httpx.Response:
    return service.post("/v1/datasets", files={"file": (name, content)}, data=fields)


def test_tags_are_learnt_from_a_file_and_served_as_the_model_answers_anywhere(service: Service, tmp_path: Path) -> None:
    sent = upload(service, "requests.conll", conll(300))
    assert sent.status_code == 201, sent.text
    entry = sent.json()
    assert entry["schema"]["columns"]["tags"]["type"] == "tags"
    shown = service.get(f"/v1/datasets/{entry['id']}/preview?rows=1").raise_for_status().json()["rows"][0]
    sentences, own, _ = bookings.make(1)
    assert shown == {
        "input": " ".join(sentences[0]),
        "tags": [list(pair) for pair in zip(sentences[0], own[0], strict=True)],
    }
    body = json.loads(entry["next"].split("'")[1]) | {"control": {"seeds": 0}, "training": FEW}
    body["teacher"]["train"]["training"] = FEW
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]
    report = service.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    figures = report["tasks"]["tags"]
    assert figures["metric"]["name"] == "span_f1"
    assert report["baselines"]["tags"]["linear"]["what"] == "the most frequent tag of each word"
    assert figures["tokens"] > 100

    asked = {"inputs": [TEXT, TEXT.split()]}
    served = service.post(f"/v1/models/job:{job['id']}/predict", asked).raise_for_status().json()["predictions"]
    assert served[0] == served[1]
    answer = served[0]["tags"]
    assert [TEXT[token["start"] : token["end"]] for token in answer["tokens"]] == TEXT.split()
    assert all(TEXT[span["start"] : span["end"]] == span["text"] for span in answer["spans"])
    column = entry["schema"]["columns"]["tags"]
    rows = text.rows([TEXT], column["shape"][0])
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    for answers in alone.on_rows(service, job["id"], tmp_path):
        own = tags.prediction(answers["tags"][0], column["classes"], rows[0])
        for token, theirs in zip(own["tokens"], answer["tokens"], strict=True):
            assert {**token, "probability": None} == {**theirs, "probability": None}
            assert token["probability"] == pytest.approx(theirs["probability"], abs=1e-5)


def test_tags_beside_a_class_of_the_text(service: Service) -> None:
    body = {
        "kind": "multitask",
        "dataset": "bookings",
        "tasks": {"tags": {}, "intent": {}},
        "training": {"steps": 8, "batch_size": 32},
        "control": {"seeds": 0},
    }
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]
    assert job["resolved_spec"]["trunk"]["arch"] == "text-encoder"
    (answer,) = service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": [TEXT]}).json()["predictions"]
    assert answer["intent"]["label"] in bookings.INTENTS
    assert len(answer["tags"]["tokens"]) == len(TEXT.split())


def test_a_trunk_without_a_map_of_its_own_is_refused(service: Service) -> None:
    body = {"kind": "multitask", "dataset": "bookings", "tasks": {"tags": {}}, "trunk": "text-cnn"}
    answer = service.post("/v1/jobs", body)
    assert answer.status_code == 422
    assert {fault["code"] for fault in answer.json()["errors"]} == {"no_map"}


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.conll", b"a\tO\nb\n", "/file/line/2"),
        ("a.bio", b"a\tB-x\nb\tx\n", "/file/line/2"),
        ("a.jsonl", b'{"tokens": ["a", "b"], "tags": ["O"]}\n', "/file/line/1/tags"),
        ("a.jsonl", b'{"text": "a b", "spans": [{"start": 1, "end": 9, "label": "x"}]}\n', "/file/line/1/spans/0"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(name: str, content: bytes, line: str, service: Service) -> None:
    answer = upload(service, name, content)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == line
