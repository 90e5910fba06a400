"""What every request meets: its id, the check of Host and Origin, the limit of bytes, one problem shape for all."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.errors import PROBLEMS
from app.settings import settings
from tests.app.api.conftest import add_job, problem


def test_every_answer_has_an_id_and_keeps_a_decent_one(client: httpx.Client) -> None:
    first, second = client.get("/healthz"), client.get("/nowhere")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert client.get("/healthz", headers={"x-request-id": "trace-7"}).headers["x-request-id"] == "trace-7"
    assert client.get("/healthz", headers={"x-request-id": "a b" * 90}).headers["x-request-id"].startswith("req_")


def test_a_path_that_is_not_there_and_a_method_that_is_not_taken(client: httpx.Client) -> None:
    problem(client.get("/v1/nothing"), 404, "not_found")
    answer = client.put("/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].replace(" ", "").split(",")) & {"GET", "POST"}


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "127.0.0.2", "", "[::2]:80"])
def test_another_host_is_refused(client: httpx.Client, host: str) -> None:
    problem(client.get("/v1/jobs", headers={"host": host}), 421, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_the_names_of_this_machine_are_served(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "file://"])
def test_a_page_of_another_origin_is_refused(client: httpx.Client, origin: str) -> None:
    problem(client.post("/v1/jobs", json={}, headers={"origin": origin}), 403, "origin_not_allowed")
    problem(client.get("/v1/jobs", headers={"origin": origin}), 403, "origin_not_allowed")


def test_our_own_page_is_served(client: httpx.Client) -> None:
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    assert client.get("/v1/jobs", headers={"origin": own}).status_code == 200


def test_a_declared_length_beyond_the_limit_is_refused_before_it_is_read(client: httpx.Client) -> None:
    body = problem(
        client.post(
            "/v1/jobs", content=b" " * (settings().max_body_bytes + 1), headers={"content-type": "application/json"}
        ),
        413,
        "body_too_large",
    )
    assert "BEQUEST_MAX_BODY_BYTES" in body["detail"]


def test_a_picture_to_predict_may_be_longer_than_other_bodies(client: httpx.Client) -> None:
    picture = json.dumps({"inputs": [[[[0.123] * 3] * 150] * 150]})
    assert len(picture) > settings().max_body_bytes
    sent: dict[str, Any] = {"content": picture, "headers": {"content-type": "application/json"}}
    problem(client.post("/v1/models/mdl_none/predict", **sent), 404, "not_found")
    problem(client.post("/v1/models/model:a/b@1/predict", **sent), 404, "not_found")


def test_a_prediction_has_its_limit_and_the_readers_other_checks(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_predict_bytes", 1000)
    headers = {"content-type": "application/json"}
    path = "/v1/models/mdl_none/predict"
    body = problem(client.post(path, content=b" " * 1001, headers=headers), 413, "body_too_large")
    assert "BEQUEST_MAX_PREDICT_BYTES" in body["detail"]
    problem(client.post(path, content=b'{"inputs": [NaN]}', headers=headers), 400, "malformed_body")


def test_a_chunked_body_is_counted_as_it_comes(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 64 * 1024

    # The server answers in the middle of the body and closes; a client may meet either.
    try:
        answer = client.post("/v1/jobs", content=endless(), headers={"content-type": "application/json"})
    except (httpx.WriteError, httpx.ReadError):
        answer = _raw_chunked(client)
    problem(answer, 413, "body_too_large")
    assert client.get("/healthz").status_code == 200


def _raw_chunked(client: httpx.Client) -> httpx.Response:
    """Sends just more than the limit, chunk by chunk, and reads what comes back."""
    address = urlsplit(str(client.base_url))
    assert address.hostname
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection((address.hostname, address.port or 80), 10) as line:
        line.sendall(head.encode())
        for _ in range(settings().max_body_bytes // 4096 + 1):
            line.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
        raw = b""
        while part := line.recv(65536):
            raw += part
    top, _, content = raw.partition(b"\r\n\r\n")
    first, *rest = top.decode().split("\r\n")
    headers = [tuple(name.split(": ", 1)) for name in rest]
    return httpx.Response(int(first.split()[1]), headers=headers, content=content)  # type: ignore[arg-type]


def test_a_client_that_hangs_up_in_the_middle_is_no_fault_of_ours(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    address = urlsplit(str(client.base_url))
    assert address.hostname
    form = f"POST /v1/datasets HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    spec = form.replace("datasets", "jobs").replace("multipart/form-data; boundary=x", "application/json")
    for head, begun in ((form, "--x\r\n"), (spec, "{")):
        with socket.create_connection((address.hostname, address.port or 80), 10) as line:
            line.sendall(f"{head}content-length: 1000\r\n\r\n{begun}".encode())
            time.sleep(0.3)  # by now the body is waited for; a line closed at once may never become a request
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and caplog.text.count("went away") < 2:
        time.sleep(0.05)
    assert caplog.text.count("went away") == 2
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("content_type", "path"),
    [
        ("application/x-www-form-urlencoded", "/v1/jobs"),
        ("text/plain", "/v1/jobs"),
        ("", "/v1/jobs/validate"),
        ("application/jsonp", "/v1/jobs"),
        ("application/json", "/v1/datasets"),
    ],
)
def test_another_content_type_is_refused_with_the_header_to_add(
    client: httpx.Client, content_type: str, path: str
) -> None:
    answer = client.post(path, content=b'{"kind":"transfer"}', headers={"content-type": content_type})
    body = problem(answer, 415, "unsupported_media_type")
    assert body["errors"][0]["pointer"] == "/header/content-type"
    assert "curl" in body["errors"][0]["hint"]


def test_a_compressed_body_is_refused(client: httpx.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    body = problem(client.post("/v1/jobs", content=b"{}", headers=headers), 415, "unsupported_media_type")
    assert body["errors"][0]["pointer"] == "/header/content-encoding"


def test_a_fault_of_our_own_says_nothing_of_itself_and_is_logged(
    client: httpx.Client, database: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that no version of ours would write: reading it fails inside the program."""
    from sqlalchemy import text

    from app.db import transaction

    job = add_job()
    with transaction() as session:
        session.execute(text('UPDATE jobs SET datasets = \'[{"secret": "hunter2"}]\' WHERE id = :id'), {"id": job})
    with caplog.at_level(logging.ERROR):
        answer = client.get(f"/v1/jobs/{job}", headers={"x-request-id": "look-here"})
    body = problem(answer, 500, "internal")
    assert "hunter2" not in answer.text
    assert "KeyError" not in answer.text
    assert body["request_id"] == "look-here"
    assert any(record.exc_info or "KeyError" in record.getMessage() for record in caplog.records)
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/nowhere", "/docs", "/problems", "/problems/invalid", "/openapi.json"])
def test_no_answer_may_be_framed_embedded_or_taken_for_another_type(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert policy.startswith("default-src 'none'" if path != "/docs" else "default-src 'self'")
    assert "script-src 'self' 'unsafe-inline'" not in policy


@pytest.mark.parametrize("code", list(PROBLEMS))
def test_every_problem_has_its_help_page(client: httpx.Client, code: str) -> None:
    page = client.get(f"/problems/{code}")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert code in page.text
    assert f"/problems/{code}" in client.get("/problems").text


def test_a_help_page_that_is_none_is_a_problem(client: httpx.Client) -> None:
    problem(client.get("/problems/nothing"), 404, "not_found")
