"""/v1/models and predict; the inference program's place is taken by a server that answers in its words."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app import artifacts, jobs, models
from app.data import builtins
from app.db import transaction
from app.settings import settings
from app.spec.models import Manifest
from tests.app.api.conftest import add_job, deleting, pointers, problem, start_job

MANIFEST = Manifest.model_validate(
    {
        "role": "model",
        "architecture": {"arch": "mlp"},
        "input": {"kind": "table", "shape": [2], "features": [{"column": "length"}, {"column": "width"}]},
        "tasks": {
            "species": {"type": "multiclass", "column": "species", "classes": ["a", "b", "c"], "units": 3},
            "odd": {"type": "binary", "column": "odd", "classes": ["even", "odd"], "units": 1},
            "marks": {"type": "multilabel", "column": "marks", "classes": ["x", "y"], "units": 2},
            "weight": {"type": "regression", "column": "weight", "units": 1},
            "place": {"type": "regression", "column": "place", "units": 2},
        },
        "layers": [],
        "parameters": 1,
        "sha256": "00",
        "versions": {},
    }
)
ROW = {"species": [0.25, 0.5, 0.25], "odd": [0.25], "marks": [0.75, 0.25], "weight": [70.5], "place": [1.0, 2.0]}


class Inference(BaseHTTPRequestHandler):
    """Answers each row with ROW, and remembers what it was asked."""

    asked: ClassVar[list[tuple[Path, NDArray[np.float32]]]] = []
    status, detail = 200, "secret reason"

    def do_POST(self) -> None:
        rows = np.load(io.BytesIO(self.rfile.read(int(self.headers["content-length"]))))
        self.asked.append((Path(parse_qs(urlsplit(self.path).query)["model"][0]), rows))
        answer = {"predictions": {task: [values] * len(rows) for task, values in ROW.items()}}
        body = json.dumps(answer if self.status == 200 else {"detail": self.detail, "rows": [1, 3]}).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Inference]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Inference)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(settings(), "inference_url", f"http://127.0.0.1:{server.server_port}")
    Inference.asked.clear()
    monkeypatch.setattr(Inference, "status", 200)
    yield Inference
    server.shutdown()
    thread.join()
    server.server_close()


def kept(client: httpx.Client, folder: Path, manifest: Manifest) -> dict[str, Any]:
    """A kept model of a running job, as the API shows it."""
    job = add_job(name="flowers")
    claim = start_job(job)
    (folder / "model.keras").write_bytes(b"weights")
    stored = artifacts.keep_file(folder / "model.keras")
    edges = [("initialized_from", "source"), ("trained_on", "digits")]
    with transaction() as session:
        row = jobs.fence(session, claim)
        models.keep(session, row, row.attempt, "source", stored, None, manifest, [])
        models.keep(session, row, row.attempt, "model", stored, None, manifest, edges)
    shown: dict[str, Any] = client.get(f"/v1/models/job:{job}").json()
    return shown


@pytest.fixture
def model(client: httpx.Client, tmp_path: Path) -> dict[str, Any]:
    return kept(client, tmp_path, MANIFEST)


def test_a_model_is_found_by_every_reference(client: httpx.Client, model: dict[str, Any]) -> None:
    job = model["job"]
    refs = [
        model["id"],
        f"job:{job}",
        f"job%3A{job}",
        f"job:{job}/best",
        f"job%3A{job}%2Fmodel",
        model["ref"],
        "model:flowers",
    ]
    assert {client.get(f"/v1/models/{ref}").json()["id"] for ref in refs} == {model["id"]}
    source = client.get(f"/v1/models/job:{job}/source").json()
    assert source["role"] == "source"
    assert {"relation": "initialized_from", "target": source["id"]} in model["edges"]
    assert model["manifest"]["tasks"]["species"]["classes"] == ["a", "b", "c"]


def test_a_model_may_be_called_anything_that_a_job_may(client: httpx.Client, tmp_path: Path) -> None:
    job = add_job(name="größte Blüte, 2 %")
    claim = start_job(job)
    (tmp_path / "model.keras").write_bytes(b"weights")
    stored = artifacts.keep_file(tmp_path / "model.keras")
    with transaction() as session:
        kept = models.keep(session, jobs.fence(session, claim), claim.attempt, "model", stored, None, MANIFEST, [])
    shown = client.get("/v1/models/" + quote(f"model:{kept.name}@1", safe="")).json()
    assert (shown["id"], shown["name"]) == (kept.id, "größte Blüte, 2 %")


def test_models_are_listed_newest_first_and_filtered(client: httpx.Client, model: dict[str, Any]) -> None:
    first = client.get("/v1/models?limit=1")
    assert [entry["id"] for entry in first.json()["data"]] == [model["id"]]
    second = client.get(first.links["next"]["url"]).json()
    assert [entry["role"] for entry in second["data"]] == ["source"]
    assert client.get("/v1/models", params={"role": "source"}).json()["data"] == second["data"]
    assert client.get("/v1/models", params={"job": "job_0"}).json()["data"] == []


@pytest.mark.parametrize("ref", ["mdl_0", "job:job_0", "model:nobody@1", "%00", "nothing", "job:job_0/../x"])
def test_a_reference_to_nothing_is_404(client: httpx.Client, ref: str) -> None:
    problem(client.get(f"/v1/models/{ref}"), 404, "not_found")
    problem(client.post(f"/v1/models/{ref}/predict", json={"inputs": [[1, 2]]}), 404, "not_found")


def test_a_prediction_is_said_in_the_words_of_the_data(
    client: httpx.Client, model: dict[str, Any], inference: type[Inference]
) -> None:
    rows: list[Any] = [{"length": 1.5, "width": 2}, [3, 4.5]]
    answer = client.post(f"/v1/models/{model['id']}/predict", json={"inputs": rows}).json()
    assert answer["model"] == model["id"]
    assert len(answer["predictions"]) == 2
    assert answer["predictions"][0] == {
        "species": {"label": "b", "probability": 0.5, "probabilities": {"a": 0.25, "b": 0.5, "c": 0.25}},
        "odd": {"label": "even", "probability": 0.75, "probabilities": {"even": 0.75, "odd": 0.25}},
        "marks": {"labels": ["x"], "probabilities": {"x": 0.75, "y": 0.25}},
        "weight": {"value": 70.5},
        "place": {"value": [1.0, 2.0]},
    }
    path, asked = inference.asked[0]
    assert (asked.dtype, asked.tolist()) == (np.float32, [[1.5, 2], [3, 4.5]])
    assert path.read_bytes() == b"weights"
    assert path.suffix == ".keras"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, {"/inputs"}),
        ({"inputs": []}, {"/inputs"}),
        ({"inputs": {}}, {"/inputs"}),
        ({"input": [[1, 2]]}, {"/input", "/inputs"}),
        ({"inputs": [[1, 2], [1], [True, 2]]}, {"/inputs/1", "/inputs/2/0"}),
        ({"inputs": [{"length": 1, "widht": 2}]}, {"/inputs/0/widht", "/inputs/0/width"}),
        ({"inputs": [[1, 2]] * 1025}, {"/inputs"}),
    ],
)
def test_wrong_rows_are_named_and_no_model_is_asked(
    client: httpx.Client, model: dict[str, Any], inference: type[Inference], body: dict[str, Any], found: set[str]
) -> None:
    answer = client.post(f"/v1/models/{model['id']}/predict", json=body)
    assert pointers(problem(answer, 422, "invalid")) == found
    assert inference.asked == []


def test_rows_that_are_too_much_for_the_model_are_named(
    client: httpx.Client, model: dict[str, Any], inference: type[Inference], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "status", 422)
    answer = client.post(f"/v1/models/{model['id']}/predict", json={"inputs": [[1, 2], [3.4e38, 1]] * 2})
    body = problem(answer, 422, "invalid")
    assert pointers(body) == {"/inputs/1", "/inputs/3"}
    assert "preview" in body["errors"][0]["hint"]


@pytest.mark.parametrize("moment", ["app.artifacts.model_file", "app.inference.predict"])
def test_a_model_that_is_deleted_while_it_is_asked_was_gone_before(
    client: httpx.Client,
    model: dict[str, Any],
    inference: type[Inference],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """The program answers 400 where there is no such file."""
    monkeypatch.setattr(inference, "status", 400)
    deleting(monkeypatch, moment, lambda session: models.forget(session, models.of_job(session, model["job"]), []))
    problem(client.post(f"/v1/models/{model['id']}/predict", json={"inputs": [[1, 2]]}), 404, "not_found")


def test_without_the_inference_program_the_answer_is_503_with_what_to_do(
    client: httpx.Client, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (None, "http://127.0.0.1:9", "unix:///nowhere.sock"):
        monkeypatch.setattr(settings(), "inference_url", address)
        answer = client.post(f"/v1/models/{model['id']}/predict", json={"inputs": [[1, 2]]})
        problem(answer, 503, "inference_unavailable")
        assert answer.headers["retry-after"]


@pytest.mark.parametrize(("status", "ours", "code"), [(503, 503, "inference_unavailable"), (500, 500, "internal")])
def test_a_failure_of_the_inference_program_is_told_without_its_words(
    client: httpx.Client,
    model: dict[str, Any],
    inference: type[Inference],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    ours: int,
    code: str,
) -> None:
    monkeypatch.setattr(inference, "status", status)
    answer = client.post(f"/v1/models/{model['id']}/predict", json={"inputs": [[1, 2]]})
    problem(answer, ours, code)
    assert "secret reason" not in answer.text


def test_a_model_that_answers_otherwise_than_when_it_was_kept_is_refused_with_what_differs(
    client: httpx.Client, model: dict[str, Any], inference: type[Inference], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "status", 409)
    monkeypatch.setattr(inference, "detail", "its answers for size differ by 1.0e-02, more than 2e-03")
    answer = client.post(f"/v1/models/{model['id']}/predict", json={"inputs": [[1, 2]]})
    problem(answer, 409, "model_differs")
    assert "its answers for size differ by 1.0e-02, more than 2e-03." in answer.json()["detail"]


@pytest.fixture
def of_iris(client: httpx.Client, tmp_path: Path) -> dict[str, Any]:
    """A model of the built-in flowers, with the tasks of MANIFEST."""
    return kept(client, tmp_path, MANIFEST.model_copy(update={"input": builtins.schema("iris").input}))


def test_all_rows_of_a_data_set_are_answered_a_line_each(
    client: httpx.Client, of_iris: dict[str, Any], inference: type[Inference], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.models.MAX_ROWS", 256)  # so 64 at a time
    with client.stream("POST", f"/v1/models/{of_iris['id']}/predict", json={"dataset": "iris"}) as answer:
        assert (answer.headers["content-type"], answer.headers["bequest-rows"]) == ("application/x-ndjson", "150")
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["row"] for line in lines] == list(range(150))
    assert lines[149]["weight"] == {"value": 70.5}
    assert [len(rows) for _, rows in inference.asked] == [64, 64, 22]
    assert np.array_equal(np.concatenate([rows for _, rows in inference.asked]), builtins.load("iris").inputs)


def test_a_data_set_that_the_model_cannot_be_fed_is_refused(client: httpx.Client, of_iris: dict[str, Any]) -> None:
    path = f"/v1/models/{of_iris['id']}/predict"
    for dataset, why in (
        ("wine", "the model takes table inputs of shape [4]"),
        ("irs", "'iris'"),
        (3, "expected a data set's id"),
    ):
        told = problem(client.post(path, json={"dataset": dataset}), 422, "invalid")
        assert why in json.dumps(told)
        assert pointers(told) == {"/dataset"}
    told = problem(client.post(path, json={"dataset": "wine", "inputs": [1], "x": 2}), 422, "invalid")
    assert pointers(told) == {"/dataset", "/inputs", "/x"}


def test_answers_that_break_off_end_in_a_line_that_says_so(
    client: httpx.Client, of_iris: dict[str, Any], inference: type[Inference], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inference, "status", 500)
    answer = client.post(f"/v1/models/{of_iris['id']}/predict", json={"dataset": "iris"})
    (line,) = [json.loads(line) for line in answer.text.splitlines()]
    assert line["row"] == 0
    assert "could not answer" in line["error"]
    assert "secret" not in answer.text
