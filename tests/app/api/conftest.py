"""The API as clients meet it: a real uvicorn on a real port, a real database; jobs put there as a worker would."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text

from app import ids, jobs
from app.api.connections import Connection
from app.db import Session, transaction
from app.jobs import Claim
from app.programs import KEEP_ALIVE_SECONDS
from app.serve import api_command
from app.tables import Job


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves `app` on a free port of this machine, in a thread; yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        # uvicorn's own 5 s to keep an idle connection are httpx's as well: now and then it would close one that is just taken up.
        patience = {"timeout_keep_alive": KEEP_ALIVE_SECONDS, "timeout_graceful_shutdown": 2}
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, http=Connection, **patience))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started, "the server did not start"
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def api_process(**environment: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The API as a process of its own, which may be killed or weighed; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*api_command(), "--port", str(port), "--log-level", "critical"]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(port), 60)
        yield port, process
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def app(_service: None) -> FastAPI:
    from app.main import create_app

    return create_app()


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture
def client(address: str, database: None) -> Iterator[httpx.Client]:
    """Speaks to the service, whose database was just emptied."""
    with httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
        yield client


def add_job(**columns: Any) -> str:
    """A queued job, as `submit` would leave it; returns its id."""
    given = {"kind": "light", "spec": {"kind": "light"}, "resolved_spec": {"kind": "light"}, "max_seconds": 60}
    with transaction() as session:
        job = Job(id=ids.new("job"), state="queued", max_attempts=3, **{**given, **columns})
        session.add(job)
    return job.id


def start_job(job_id: str) -> Claim:
    """Claims that job, which is the only runnable one, for an hour: nobody extends the lease, and the API's sweep looks at it."""
    claim = jobs.claim("worker-1")
    assert claim is not None
    assert claim.job_id == job_id
    with transaction() as session:
        session.execute(
            text("UPDATE jobs SET lease_until = clock_timestamp() + interval '1 h' WHERE id = :id"), {"id": job_id}
        )
    return claim


def note(claim: Claim, **data: Any) -> None:
    with transaction() as session:
        jobs.note(session, claim, "epoch", data)


def end_job(claim: Claim, state: str = "succeeded") -> None:
    error = {"code": "internal", "message": "it broke", "hint": "ask", "blame": "system", "retryable": True}
    with transaction() as session:
        jobs.finish(session, claim, jobs.JobState(state), reason="done", error=error if state == "failed" else None)


def deleting(monkeypatch: pytest.MonkeyPatch, path: str, delete: Callable[[Session], object]) -> None:
    """Lets a deletion through, bytes and all, at the moment in which `path`, a function, is called for the first time."""
    module, _, name = path.rpartition(".")
    function = getattr(importlib.import_module(module), name)

    def called(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(path, function)
        with transaction() as session:
            delete(session)
        return function(*arguments, **named)

    monkeypatch.setattr(path, called)


def begun(
    client: httpx.Client, method: str, headers: str = "", body: str = "", path: str = "/v1/jobs"
) -> socket.socket:
    """A line on which a request was sent, perhaps not all of it."""
    address = urlsplit(str(client.base_url))
    line = socket.create_connection((address.hostname or "", address.port or 80), 10)
    line.sendall(f"{method} {path} HTTP/1.1\r\nhost: {address.netloc}\r\n{headers}\r\n{body}".encode())
    return line


def everything(line: socket.socket) -> bytes:
    """What the server sends until it closes."""
    found = b""
    try:
        while part := line.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem in an answer, checked for its one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id", "errors"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"/problems/{code}"
    assert body["request_id"] == answer.headers["x-request-id"]
    for fault in body["errors"]:
        assert set(fault) == {"pointer", "message", "hint", "code"}
        assert fault["message"]
    assert "Traceback" not in answer.text
    return body


def pointers(body: dict[str, Any]) -> set[str]:
    return {fault["pointer"] for fault in body["errors"]}
