"""The API as a process: it starts, sweeps, and stops in time whoever is listening."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from redis import Redis
from sqlalchemy import text

from app import jobs
from app.db import transaction
from tests.app.api.conftest import add_job, start_job

pytestmark = pytest.mark.usefixtures("database")


@contextmanager
def api() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`uvicorn app.main:app` in a process of its own; yields it and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--timeout-graceful-shutdown", "2"]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"{address}/healthz", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield process, address
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_time_with_streams_open(number: signal.Signals) -> None:
    job = add_job()
    start_job(job)
    with api() as (process, address), httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
        headers = {"accept": "text/event-stream"}
        with (
            client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as events,
            client.stream("GET", f"/v1/jobs/{job}/logs", params={"follow": True}),
        ):
            lines = events.iter_lines()
            next(lines)
            began = time.monotonic()
            process.send_signal(number)
            for _ in lines:  # the stream is ended, not cut: no transport error here
                pass
            process.wait(10)
        assert time.monotonic() - began < 3


def test_its_sweep_takes_back_a_job_whose_worker_is_gone(broker_url: str) -> None:
    job = add_job()
    start_job(job)
    with api() as (_, address):
        with transaction() as session:
            session.execute(
                text("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 s' WHERE id = :id"), {"id": job}
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            body = httpx.get(f"{address}/v1/jobs/{job}", trust_env=False).json()
            if body["state"] == "queued":
                break
            time.sleep(0.1)
        assert (body["state"], body["reason"]) == ("queued", "worker_lost")
        with Redis.from_url(broker_url) as broker:
            while time.monotonic() < deadline and not broker.llen("bequest.wake"):
                time.sleep(0.1)
            assert broker.llen("bequest.wake") >= 1


def test_it_goes_on_after_the_database_went_away_and_came_back() -> None:
    with api() as (process, address), httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
        job = add_job()
        with client.stream("GET", f"/v1/jobs/{job}/events", headers={"accept": "text/event-stream"}) as events:
            lines = events.iter_lines()
            assert next(lines).startswith("retry:")  # the stream is open before the database goes
            seen = (line for line in lines if line.startswith("id:"))
            with transaction() as session:  # all of its connections, the listening one too
                session.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name LIKE 'bequest%' AND pid <> pg_backend_pid()"
                    )
                )
            assert client.get(f"/v1/jobs/{job}").status_code in (200, 503)
            assert client.get(f"/v1/jobs/{job}").status_code == 200
            with transaction() as session:
                jobs.cancel(session, job)
            assert next(seen) == "id: 1"
        assert process.poll() is None
