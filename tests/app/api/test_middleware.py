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
from tests.app.api.conftest import add_job, begun, everything, problem


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


def test_a_prediction_has_its_limit_and_needs_a_model_before_its_body_is_read(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_predict_bytes", 1000)
    headers = {"content-type": "application/json"}
    path = "/v1/models/mdl_00000000000000000000000000000000/predict"
    body = problem(client.post(path, content=b" " * 1001, headers=headers), 413, "body_too_large")
    assert "BEQUEST_MAX_PREDICT_BYTES" in body["detail"]
    with begun(client, "POST", "content-type: application/json\r\ncontent-length: 1000\r\n", "{", path) as line:
        assert line.recv(100).startswith(b"HTTP/1.1 404"), "answered while the body is still to come"


def test_a_chunked_body_is_counted_as_it_comes(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 64 * 1024

    answer = client.post("/v1/jobs", content=endless(), headers={"content-type": "application/json"})
    problem(answer, 413, "body_too_large")
    assert client.get("/healthz").status_code == 200


def test_a_client_that_hangs_up_in_the_middle_is_no_fault_of_ours(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    address = urlsplit(str(client.base_url))
    assert address.hostname
    form = f"POST /v1/datasets HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    spec = form.replace("datasets", "jobs").replace("multipart/form-data; boundary=x", "application/json")
    for head, start in ((form, "--x\r\n"), (spec, "{")):
        with socket.create_connection((address.hostname, address.port or 80), 10) as line:
            line.sendall(f"{head}content-length: 1000\r\n\r\n{start}".encode())
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
        ("text/plain", "/v1/datasets"),
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


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/jobs", {"GET", "HEAD", "POST"}),
        ("/v1/jobs/job_00000000000000000000000000000000", {"GET", "HEAD", "DELETE"}),
        ("/v1/datasets", {"GET", "HEAD", "POST"}),
        ("/v1/datasets/digits", {"GET", "HEAD", "DELETE"}),
        ("/v1/models", {"GET", "HEAD", "POST"}),
        ("/v1/jobs/job_00000000000000000000000000000000/cancel", {"POST"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_a_refused_method_hears_of_all_that_the_path_takes(client: httpx.Client, path: str, expected: set[str]) -> None:
    for method in ("OPTIONS", "TRACE", "PUT"):
        answer = client.request(method, path)
        problem(answer, 405, "method_not_allowed")
        (allowed,) = answer.headers.get_list("allow")
        assert set(allowed.split(", ")) == expected


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/datasets/digits", "/v1/nothing", "/healthz", "/docs", "/openapi.json"]
)
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    for name in ("content-type", "content-length", "etag", "cache-control"):
        assert head.headers.get(name) == get.headers.get(name), name
    assert client.get("/healthz").status_code == 200, "the connection goes on"


def test_head_of_a_stream_ends(client: httpx.Client) -> None:
    job = add_job()
    answer = client.head(f"/v1/jobs/{job}/events", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_head_where_only_post_is_taken_is_refused(client: httpx.Client) -> None:
    assert client.head("/v1/jobs/job_00000000000000000000000000000000/cancel").status_code == 405


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://{host}/v1/jobs?limit=1", 200),
        ("HTTP://{host}/healthz", 200),
        ("http://{host}", 307),
        ("http://evil.example/v1/jobs", 421),
        ("http://{host}@evil.example/v1/jobs", 421),
        ("ftp://{host}/healthz", 404),
    ],
)
def test_a_target_in_the_absolute_form_is_served_by_its_own_host(
    client: httpx.Client, target: str, status: int
) -> None:
    """Whatever the Host header says (RFC 9112 3.2.2)."""
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname or "", address.port or 80), 10) as line:
        asked = target.format(host=address.netloc)
        line.sendall(f"GET {asked} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        assert int(line.recv(65536)[9:12]) == status


def test_a_host_of_another_name_is_no_way_around_the_absolute_form(client: httpx.Client) -> None:
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname or "", address.port or 80), 10) as line:
        line.sendall(f"GET http://{address.netloc}/healthz HTTP/1.1\r\nhost: evil.example\r\n\r\n".encode())
        assert int(line.recv(65536)[9:12]) == 200, "the header is not looked at"


def test_a_body_whose_length_is_said_in_two_ways_is_refused_and_the_connection_closed(client: httpx.Client) -> None:
    head = "content-type: application/json\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n"
    with begun(client, "POST", head, "2\r\n{}\r\n0\r\n\r\n") as line:
        said = everything(line)
    assert said.startswith(b"HTTP/1.1 400")
    assert b"exclude each other" in said
    assert said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("query", ["limit=1&limit=2", "state=queued&state=failed&limit=1", "limit=1&limit=1"])
def test_a_parameter_that_stands_twice_is_refused(client: httpx.Client, query: str) -> None:
    body = problem(client.get(f"/v1/jobs?{query}"), 422, "invalid_parameter")
    assert [fault["code"] for fault in body["errors"]] == ["duplicate_key"]
