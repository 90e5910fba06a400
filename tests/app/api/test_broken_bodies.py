"""Broken bodies: each a 4xx problem that names every fault by its place; nothing is stored, and the service goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import artifacts, jobs, models
from app.db import transaction
from app.spec.models import Manifest
from tests.app.api.conftest import add_job, pointers, problem, start_job

JSON = {"content-type": "application/json"}
TRANSFER = {"kind": "transfer", "dataset": "digits", "source": {"train": {"dataset": "strokes"}}}
MULTITASK = {
    "kind": "multitask",
    "dataset": "digits",
    "tasks": {"digit": {"column": "digit"}, "odd": {"column": "odd"}},
}
DISTILLATION = {
    "kind": "distillation",
    "dataset": "digits",
    "teacher": {"train": {"dataset": "digits"}},
    "student": "cnn-small",
}


def raw(base: dict[str, Any], inside: str) -> str:
    """The body with members of raw JSON text put before its end."""
    return json.dumps(base)[:-1] + "," + inside + "}"


# (body, status, pointers of all faults)
BROKEN: dict[str, tuple[Any, int, set[str]]] = {
    "nothing": ("", 400, {""}),
    "not JSON": ("{'kind': 'transfer'}", 400, {""}),
    "cut off": (json.dumps(TRANSFER)[:-3], 400, {""}),
    "a list": ([TRANSFER], 422, {""}),
    "null": ("null", 422, {""}),
    "a text": ('"transfer"', 422, {""}),
    "no kind": ({"dataset": "digits"}, 422, {"/kind"}),
    "an unknown kind": ({**TRANSFER, "kind": "transfre"}, 422, {"/kind"}),
    "a kind that is a number": ({**TRANSFER, "kind": 7}, 422, {"/kind"}),
    "an unknown field": ({**TRANSFER, "trainning": {}}, 422, {"/trainning"}),
    "an unknown field inside": ({**TRANSFER, "training": {"epoch": 3}}, 422, {"/training/epoch"}),
    "wrong types": (
        {**TRANSFER, "training": {"epochs": "3", "batch_size": True, "seed": 1.5}},
        422,
        {"/training/epochs", "/training/batch_size", "/training/seed"},
    ),
    "a negative number": ({**TRANSFER, "training": {"epochs": -1}}, 422, {"/training/epochs"}),
    "more epochs than allowed": ({**TRANSFER, "training": {"epochs": 10**9}}, 422, {"/training/epochs"}),
    "NaN": (raw(TRANSFER, '"training": {"optimizer": {"learning_rate": NaN}}'), 400, {"/training/optimizer/learning_rate"}),
    "Infinity": (raw(TRANSFER, '"max_seconds": Infinity'), 400, {"/max_seconds"}),
    "1e999": (raw(TRANSFER, '"training": {"optimizer": {"learning_rate": 1e999}}'), 400, {"/training/optimizer/learning_rate"}),
    "an integer of 400 digits": (raw(TRANSFER, '"training": {"epochs": 1' + "0" * 400 + "}"), 400, {"/training/epochs"}),
    "a lone surrogate": (raw(TRANSFER, '"name": "a\\ud800b"'), 400, {"/name"}),
    "a NUL": (raw(TRANSFER, '"name": "a\\u0000b"'), 400, {"/name"}),
    "a key twice": (raw(TRANSFER, '"name": "a", "name": "b"'), 400, {"/name"}),
    "too deep": (raw(TRANSFER, '"metadata": ' + '{"a":' * 40 + "1" + "}" * 40), 400, {"/metadata/a", "/metadata" + "/a" * 31}),
    "100,000 brackets": ("[" * 100_000, 400, {""}),
    "bad UTF-8": (b'{"kind": "\xff"}', 400, {""}),
    "several kinds of fault at once": (
        raw(TRANSFER, '"name": "\\ud800", "priority": 77, "nmae": 1, "max_seconds": NaN'),
        400,
        {"/name", "/priority", "/nmae", "/max_seconds"},
    ),
    "an unknown data set": ({**TRANSFER, "dataset": "digit"}, 422, {"/dataset"}),
    "two unknown data sets": (
        {**TRANSFER, "dataset": "nope", "source": {"train": {"dataset": "ds_0"}}},
        422,
        {"/dataset", "/source/train/dataset"},
    ),
    "a data set that is a path": ({**TRANSFER, "dataset": "../../etc/passwd"}, 422, {"/dataset"}),
    "a data set that is a URL": ({**TRANSFER, "dataset": {"uri": "file:///etc/passwd"}}, 422, {"/dataset"}),
    "columns that do not exist": (
        {**MULTITASK, "tasks": {"a": {"column": "digti"}, "b": {"column": "nope"}}},
        422,
        {"/tasks/a/column", "/tasks/b/column"},
    ),
    "a target that does not exist": ({**TRANSFER, "target": "digitt"}, 422, {"/target"}),
    "no tasks": ({**MULTITASK, "tasks": {}}, 422, {"/tasks"}),
    "a task's name that is a path": ({**MULTITASK, "tasks": {"../x": {"column": "digit"}}}, 422, {"/tasks/..~1x"}),
    "a task of another type than its column": (
        {**MULTITASK, "tasks": {"digit": {"column": "digit", "type": "regression"}}},
        422,
        {"/tasks/digit/type"},
    ),
    "an unknown architecture": ({**DISTILLATION, "student": "cnn-smal"}, 422, {"/student"}),
    "an architecture out of bounds": ({**DISTILLATION, "student": {"arch": "cnn", "dense": 10**9}}, 422, {"/student/dense"}),
    "a model too large": ({**DISTILLATION, "student": {"arch": "cnn", "filters": [1024] * 8, "dense": 4096}}, 422, {"/student"}),
    "an architecture for other inputs": (
        {**DISTILLATION, "dataset": "wine", "teacher": {"train": {"dataset": "wine"}}, "student": "cnn"},
        422,
        {"/student"},
    ),
    "a teacher that does not exist": ({**DISTILLATION, "teacher": "job:job_0"}, 422, {"/teacher"}),
    "a strategy that is not there": ({**TRANSFER, "strategy": "osmosis"}, 422, {"/strategy"}),
    "a sharing that is not there": ({**MULTITASK, "sharing": "mmo"}, 422, {"/sharing"}),
    "a weighting that is not there": ({**MULTITASK, "weighting": "nash_mtl"}, 422, {"/weighting"}),
    "a split that does not add up": ({**TRANSFER, "split": {"train": 0.5, "test": 0.1}}, 422, {"/split"}),
    "a split by a column that is not there": ({**TRANSFER, "split": {"by": "column", "column": "fold"}}, 422, {"/split/column"}),
    "a name with a line break": ({**TRANSFER, "name": "a\nb"}, 422, {"/name"}),
    "a long name": ({**TRANSFER, "name": "n" * 1000}, 422, {"/name"}),
    "a tag with blanks": ({**TRANSFER, "tags": ["ok", "not ok"]}, 422, {"/tags/1"}),
    "metadata that is not text": ({**TRANSFER, "metadata": {"a": 1}}, 422, {"/metadata/a"}),
}  # fmt: skip


def send(client: httpx.Client, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return client.post(path, content=content, headers=JSON)


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_body_is_refused_with_every_fault_named(client: httpx.Client, name: str) -> None:
    body, status, expected = BROKEN[name]
    answer = send(client, "/v1/jobs", body)
    code = answer.json().get("code", "")
    found = problem(answer, status, code)
    assert code in ("malformed_body", "invalid", "not_available")
    assert pointers(found) == expected, found["errors"]
    assert client.get("/v1/jobs").json()["data"] == []
    # The same eyes look at it when it is only to be checked.
    checked = send(client, "/v1/jobs/validate", body)
    assert (checked.status_code, checked.json()["errors"]) == (status, found["errors"])
    assert client.get("/healthz").status_code == 200


def test_there_are_enough_of_them() -> None:
    assert len(BROKEN) >= 30


def test_the_sound_ones_that_they_are_made_from_are_taken(client: httpx.Client) -> None:
    for body in (TRANSFER, MULTITASK, DISTILLATION):
        assert send(client, "/v1/jobs", body).status_code == 202


def test_faults_come_with_a_hint_that_names_the_nearest(client: httpx.Client) -> None:
    body = {**TRANSFER, "dataset": "digit", "trainning": {}}
    errors = {
        error["pointer"]: error["hint"] for error in problem(send(client, "/v1/jobs", body), 422, "invalid")["errors"]
    }
    assert errors["/trainning"] == "did you mean 'training'?"
    errors = {
        error["pointer"]: error["hint"]
        for error in problem(send(client, "/v1/jobs", {**TRANSFER, "dataset": "digit"}), 422, "invalid")["errors"]
    }
    assert errors["/dataset"] == "did you mean 'digits'?"


def test_what_the_client_wrote_is_not_sent_back(client: httpx.Client) -> None:
    secret = "hunter2-do-not-echo"
    for body in (
        {**TRANSFER, "name": secret * 100},
        {**TRANSFER, "dataset": f"{secret}!"},
        {**TRANSFER, "training": {"epochs": secret}},
        {**TRANSFER, "priority": secret},
        {**TRANSFER, "tags": [f"{secret} x"]},
        {"kind": secret},
        f'{{"kind": "{secret}',
    ):
        answer = send(client, "/v1/jobs", body)
        assert 400 <= answer.status_code < 500
        assert secret not in answer.text, answer.text


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/v1/jobs", {"metadata": {f"k{number}": number for number in range(14_000)}}),
        ("/v1/jobs", {f"k{number}": {} for number in range(14_000)}),
        ("/v1/jobs", {"tasks": {f"k{number}": 1 for number in range(14_000)}}),
        ("/v1/jobs/job_00000000000000000000000000000000/cancel", {f"k{number}": {} for number in range(14_000)}),
        ("/v1/jobs?" + "&".join(f"k{number}" for number in range(5_000)), {}),
    ],
    ids=["metadata", "unknown fields", "tasks", "cancel", "parameters"],
)
def test_of_thousands_of_faults_a_hundred_are_named_without_looking_for_the_rest(
    client: httpx.Client, path: str, inside: dict[str, Any]
) -> None:
    """The last ones took minutes of the processor when each was compared with all others."""
    answer = send(client, path, {**MULTITASK, **inside})
    body = problem(answer, 422, "invalid_parameter" if "?" in path else "invalid")
    assert len(body["errors"]) == 100
    assert len(answer.content) < 64 * 1024


@pytest.fixture
def teacher(client: httpx.Client, tmp_path: Path) -> str:
    """A kept model that knows other classes than the digits."""
    manifest = {
        "role": "model",
        "architecture": {"arch": "cnn"},
        "input": client.get("/v1/datasets/digits").json()["schema"]["input"],
        "tasks": {"digit": {"type": "multiclass", "column": "digit", "classes": ["cat", "dog", "cow"], "units": 3}},
        "heads": {"digit": {}},
        "layers": ["conv1"],
        "parameters": 1,
        "sha256": "00",
        "versions": {},
    }
    job = add_job()
    claim = start_job(job)
    (tmp_path / "model.keras").write_bytes(b"weights")
    stored = artifacts.keep_file(tmp_path / "model.keras")
    with transaction() as session:
        models.keep(
            session,
            jobs.fence(session, claim),
            claim.attempt,
            "model",
            stored,
            None,
            Manifest.model_validate(manifest),
            [],
        )
    return f"job:{job}"


def test_a_teacher_with_other_classes_is_refused(client: httpx.Client, teacher: str) -> None:
    answer = send(client, "/v1/jobs", {**DISTILLATION, "teacher": teacher})
    body = problem(answer, 422, "invalid")
    assert {place.split("/")[1] for place in pointers(body)} == {"teacher"}
    assert "class" in body["errors"][0]["message"]
