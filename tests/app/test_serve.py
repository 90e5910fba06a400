"""`bequest serve` as a person runs it: started, refused, killed, started again on its folder, stopped."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

LIGHT = {"BEQUEST_PLUGINS": "tests.plugins", "BEQUEST_SPARE_KERAS": "0", "BEQUEST_LOG_FORMAT": "json"}
QUICK = {"BEQUEST_LEASE_SECONDS": "3", "BEQUEST_BEAT_SECONDS": "0.5", "BEQUEST_SWEEP_SECONDS": "0.5"}
OUTSIDE = ("DATABASE_URL", "BROKER_URL", "INFERENCE_URL", "BEQUEST_DATA")


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return found


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    # Predictions need Keras, which takes seconds to import and is not what is looked at here.
    return {**kept, **LIGHT, **QUICK, "INFERENCE_URL": "http://127.0.0.1:9"}


def bequest(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def processes_with(words: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if words.encode() in line:
                found.append(int(entry.name))
    return found


@pytest.fixture
def home(run_dir: Path) -> Path:
    return run_dir / "served"


@pytest.fixture
def serving(home: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], httpx.Client]]]:
    """Starts the service on one folder, as often as called."""
    started: list[subprocess.Popen[str]] = []
    clients: list[httpx.Client] = []

    def start() -> tuple[subprocess.Popen[str], httpx.Client]:
        port = free_port()
        process = bequest("serve", "--data", str(home), "--port", str(port))
        started.append(process)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        clients.append(client)

        def ready() -> bool:
            assert process.poll() is None, process.stdout and process.stdout.read()
            try:
                return bool(client.get("/readyz").json().get("workers_online"))
            except httpx.HTTPError:
                return False

        wait_for(ready)
        return process, client

    yield start
    for client in clients:
        client.close()
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def submit(client: httpx.Client, **spec: Any) -> str:
    answer = client.post("/v1/jobs", json={"kind": "light", **spec})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(client: httpx.Client, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return found


def succeeded(client: httpx.Client, job_id: str) -> dict[str, Any]:
    return wait_for(lambda: found if (found := job(client, job_id))["state"] == "succeeded" else None)


def test_killed_and_started_again_on_its_folder_it_has_lost_nothing(serving: Any, home: Path) -> None:
    process, client = serving()
    done = submit(client, steps=5)
    before = succeeded(client, done)
    running = submit(client, steps=150, step_seconds=0.05)
    waiting = submit(client, steps=2)
    wait_for(lambda: (job(client, running)["progress"] or {}).get("step", 0) >= 10)

    process.kill()
    process.wait()
    wait_for(lambda: not processes_with(str(home)), 20)

    process, client = serving()
    after = job(client, done)
    assert {**after, "links": None} == {**before, "links": None}
    assert client.get(f"/v1/jobs/{done}/metrics").json()["step"] == [1, 2, 3, 4, 5]
    assert client.get(f"/v1/jobs/{done}/artifacts/model.keras").status_code == 200
    again = succeeded(client, running)
    assert again["attempt"] == 2
    assert client.get(f"/v1/jobs/{running}/metrics").json()["step"] == list(range(1, 151))
    assert succeeded(client, waiting)["attempt"] == 1

    # A stop is kinder than a kill: the running job is given back with its checkpoint and without charge.
    third = submit(client, steps=200, step_seconds=0.05)
    wait_for(lambda: (job(client, third)["progress"] or {}).get("step", 0) >= 10)
    began = time.monotonic()
    process.terminate()
    process.wait(30)
    assert time.monotonic() - began < 25
    assert process.returncode == 0
    assert not processes_with(str(home))

    _, client = serving()
    wait_for(lambda: job(client, third)["state"] == "running")
    attempts = client.get(f"/v1/jobs/{third}/attempts").json()["data"]
    assert [one["outcome"] for one in attempts] == ["drained", None]
    assert client.post(f"/v1/jobs/{third}/cancel").status_code in (200, 202)


def test_a_child_that_dies_is_started_again(serving: Any, home: Path) -> None:
    _, client = serving()
    (worker,) = [row["pid"] for row in client.get("/v1/workers").json()["data"]]
    (broker,) = [
        pid
        for pid in processes_with(f"{home}/valkey/pid")
        if b"valkey-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(worker, signal.SIGKILL)
    os.kill(broker, signal.SIGKILL)
    job_id = submit(client, steps=3)
    assert succeeded(client, job_id)["attempt"] == 1


def test_an_idle_connection_is_kept_longer_than_a_client_pools_it(serving: Any) -> None:
    _, client = serving()
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    for pause in (6, 0):  # uvicorn's own patience is 5 s
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        time.sleep(pause)
        connection.auto_open = 0  # type: ignore[assignment]
    connection.close()


def test_what_cannot_work_is_one_sentence_and_status_2(run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            f"cannot listen on 127.0.0.1 port {port} (Address already in use): choose another with --port": (
                "--port",
                port,
            ),
            "add --insecure if that is meant": ("--host", "0.0.0.0"),
        }
        for sentence, arguments in cases.items():
            process = bequest("serve", "--data", str(run_dir / "never"), *arguments)
            said, _ = process.communicate(timeout=30)
            assert process.returncode == 2
            assert sentence in said
            assert len(said.strip().splitlines()) == 1
    assert not (run_dir / "never").exists()


def test_a_worker_without_addresses_says_which_is_missing() -> None:
    process = bequest("worker")
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said == "bequest: DATABASE_URL is not set; a worker needs the address of the service's own\n"
