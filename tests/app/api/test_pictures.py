"""Archives of pictures over HTTP: what is answered at once, what goes on as `preparing`, and what a dead process leaves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import update

from app import intake
from app.data import uploads
from app.db import transaction
from app.settings import settings
from app.spec.faults import Fault, Invalid
from app.tables import Dataset
from tests.app.api.conftest import pointers, problem
from tests.app.api.uploads import upload
from tests.app.data.pictures import class_folders, zipped
from tests.app.data.sounds import class_folders as sounds

CONTENT = zipped(class_folders(8))


def temporary() -> list[str]:
    return sorted(path.name for path in (settings().store / "tmp").glob("*"))


def until(client: httpx.Client, dataset: str, state: str, seconds: float = 30) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while (body := client.get(f"/v1/datasets/{dataset}").raise_for_status().json())["state"] != state:
        assert time.monotonic() < end, body
        time.sleep(0.1)
    return body


def test_a_zip_of_class_folders_is_a_data_set_that_says_what_became_of_it(client: httpx.Client) -> None:
    answer = upload(client, CONTENT, filename="photos.zip", name="animals", size="8x6", fit="stretch")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["state"], body["format"], body["schema"]["rows"]) == ("ready", "zip", 8)
    assert body["schema"]["input"]["shape"] == [8, 6, 3]
    assert body["schema"]["input"]["decode"]["fit"] == "stretch"
    assert (body["intake"]["used"], body["intake"]["broken"], body["progress"], body["errors"]) == (8, [], None, None)
    assert body["next"].startswith("curl --json '{")
    assert body["id"] in body["next"]
    again = upload(client, CONTENT, filename="photos.zip", size="8x6", fit="stretch")
    assert (again.status_code, again.json()["id"]) == (200, body["id"])
    other = upload(client, CONTENT, filename="photos.zip", size="8x8")
    assert (other.status_code, other.json()["id"] != body["id"]) == (201, True)
    rows = client.get(f"/v1/datasets/{body['id']}/preview", params={"rows": 1}).json()["rows"]
    assert np.array(rows[0]["input"]).shape == (8, 6, 3)
    assert rows[0]["label"] == "cats"
    listed = client.get("/v1/datasets").json()["data"]
    assert {entry["state"] for entry in listed} == {"ready"}
    assert temporary() == []


def test_a_zip_of_sounds_has_the_rate_and_the_length_that_were_asked_for(client: httpx.Client) -> None:
    content = zipped(sounds(6))
    body = upload(client, content, filename="sounds.zip", rate="4000", seconds="0.1").json()
    shape = body["schema"]["input"]
    assert (shape["kind"], shape["shape"], shape["decode"]["rate"]) == ("audio", [400, 1], 4000)
    assert "6 longer ones were cut there; -F seconds=" in body["intake"]["notes"][-1]
    other = upload(client, content, filename="sounds.zip").json()
    assert (other["schema"]["input"]["shape"], other["id"] != body["id"]) == ([1600, 1], True)
    (row,) = client.get(f"/v1/datasets/{other['id']}/preview", params={"rows": 1}).json()["rows"]
    assert len(row["input"]) == 1600
    assert 0.4 < max(row["input"]) <= 0.5
    assert row["label"] == "high"


def test_the_command_that_follows_is_a_job_without_fault(client: httpx.Client) -> None:
    body = upload(client, CONTENT, filename="photos.zip", size="32x32").json()
    spec = json.loads(body["next"].split("'")[1])
    checked = client.post("/v1/jobs/validate", json=spec)
    assert checked.status_code in (200, 503), checked.text  # 503: nobody traces networks in this test


def test_an_archive_is_read_again_with_other_options(client: httpx.Client) -> None:
    first = upload(client, CONTENT, filename="photos.zip", name="animals").json()
    again = client.post("/v1/datasets", json={"dataset": first["id"], "size": "8x6", "fit": "crop"})
    assert again.status_code == 201, again.text
    body = again.json()
    assert (body["sha256"], body["name"], body["schema"]["input"]["shape"]) == (first["sha256"], "animals", [8, 6, 3])
    sent = upload(client, CONTENT, filename="photos.zip", size="8x6", fit="crop").json()
    assert sent["id"] == body["id"]
    assert temporary() == []
    table = upload(client, b"a,y\n1.5,x\n2.5,z\n").json()
    for ref, says in ((table["id"], "not kept"), ("ds_" + "0" * 32, "no such upload")):
        refused = problem(client.post("/v1/datasets", json={"dataset": ref}), 422, "invalid")
        assert [(fault["pointer"], says in fault["message"]) for fault in refused["errors"]] == [("/dataset", True)]
    wrong = client.post("/v1/datasets", json={"dataset": "digits", "size": "0x1"})
    assert pointers(problem(wrong, 422, "invalid")) == {"/dataset", "/size"}
    assert pointers(problem(client.post("/v1/datasets", json={}), 422, "invalid")) == {"/uri"}


def test_every_fault_of_the_fields_is_named_at_once(client: httpx.Client) -> None:
    answer = upload(client, CONTENT, size="0x5", fit="squash", skip_broken="perhaps", sise="4x4")
    assert pointers(problem(answer, 422, "invalid")) == {"/sise", "/size", "/fit", "/skip_broken"}
    for rate, seconds in (("999", "0"), ("96001", "61"), ("16k", "1e1"), ("-8000", "nan"), ("٨٠٠٠", "1.0.0")):
        answer = upload(client, CONTENT, rate=rate, seconds=seconds)
        assert pointers(problem(answer, 422, "invalid")) == {"/rate", "/seconds"}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Readings that wait for the event, and clients that wait a moment."""
    go_on, read = threading.Event(), uploads.inspect_upload

    def waits(*arguments: Any, **named: Any) -> Any:
        tell = arguments[5]
        tell(3, 8)
        go_on.wait(30)
        return read(*arguments, **named)

    monkeypatch.setattr(uploads, "inspect_upload", waits)
    monkeypatch.setattr(intake, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(intake, "PROGRESS_SECONDS", 0.1)
    yield go_on
    go_on.set()


def test_what_takes_long_is_prepared_while_the_client_goes_on(client: httpx.Client, slow: threading.Event) -> None:
    answer = upload(client, CONTENT, filename="photos.zip", name="slow ones")
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["state"], body["schema"], body["intake"]) == ("preparing", None, None)
    assert body["next"] == f"curl $S/v1/datasets/{body['id']}"
    end = time.monotonic() + 10
    while (shown := client.get(f"/v1/datasets/{body['id']}").json())["progress"] != {"done": 3, "total": 8}:
        assert time.monotonic() < end, shown
    again = upload(client, CONTENT, filename="photos.zip")
    assert (again.status_code, again.json()["id"]) == (202, body["id"])
    assert problem(client.get(f"/v1/datasets/{body['id']}/preview"), 409, "dataset_not_ready")
    spec = {"kind": "distillation", "dataset": body["id"], "teacher": {"train": {"dataset": "digits"}}}
    refused = client.post("/v1/jobs", json=spec)
    assert "still being prepared" in refused.text
    listed = client.get("/v1/datasets").json()["data"][0]
    assert (listed["id"], listed["state"], listed["schema"]) == (body["id"], "preparing", None)
    slow.set()
    done = until(client, body["id"], "ready")
    assert (done["schema"]["rows"], done["progress"]) == (8, None)
    end = time.monotonic() + 10
    while temporary():
        assert time.monotonic() < end, temporary()
        time.sleep(0.05)


def test_a_refusal_that_comes_late_stands_in_the_data_set(
    client: httpx.Client, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        slow.wait(30)
        raise Invalid([Fault("/file", "8 of 8 files are broken", "mend them", "broken_files")])

    monkeypatch.setattr(uploads, "inspect_upload", refuses)
    body = upload(client, CONTENT, filename="photos.zip").json()
    slow.set()
    failed = until(client, body["id"], "failed")
    assert [(error["pointer"], error["code"]) for error in failed["errors"]] == [("/file", "broken_files")]
    assert (failed["next"], failed["schema"]) == (None, None)
    monkeypatch.undo()
    again = upload(client, CONTENT, filename="photos.zip")
    assert (again.status_code, again.json()["id"] != body["id"]) == (201, True)
    assert client.get(f"/v1/datasets/{body['id']}").status_code == 404


def test_what_a_dead_process_was_preparing_is_begun_anew(client: httpx.Client) -> None:
    """Its lock is gone and the state is still `preparing`: the bytes that were sent are read again."""
    body = upload(client, CONTENT, filename="photos.zip").json()
    with transaction() as session:
        session.execute(
            update(Dataset)
            .where(Dataset.id == body["id"])
            .values(state="preparing", schema=None, intake=None, prepared_sha256=None)
        )
    until(client, body["id"], "ready")  # the API's own sweep
    shown = client.get(f"/v1/datasets/{body['id']}").json()
    assert (shown["schema"], shown["intake"]) == (body["schema"], body["intake"])


def test_another_process_at_work_is_left_alone(client: httpx.Client, slow: threading.Event) -> None:
    body = upload(client, CONTENT, filename="photos.zip").json()
    end = time.monotonic() + 10
    while client.get(f"/v1/datasets/{body['id']}").json()["progress"] is None:  # it holds the lock
        assert time.monotonic() < end
    assert intake.resume() == []
    slow.set()
    until(client, body["id"], "ready")


def test_deleting_a_data_set_removes_the_bytes_that_were_sent_too(client: httpx.Client) -> None:
    content = zipped(class_folders(10))
    body = upload(client, content, filename="photos.zip").json()
    blobs = settings().store / "blob"
    assert (blobs / body["sha256"]).read_bytes() == content
    before = len(list(blobs.iterdir()))
    assert client.delete(f"/v1/datasets/{body['id']}").status_code == 204
    assert len(list(blobs.iterdir())) == before - 2
