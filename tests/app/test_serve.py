"""`bequest serve` as a person runs it: started, refused, killed, started again on its folder, stopped."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import programs
from app.serve import _healthz, _is_ours, _Requests

slow = pytest.mark.slow  # starts the whole service

LIGHT = {"BEQUEST_PLUGINS": "tests.plugins", "BEQUEST_SPARE_KERAS": "0", "BEQUEST_LOG_FORMAT": "json"}
QUICK = {"BEQUEST_LEASE_SECONDS": "3", "BEQUEST_BEAT_SECONDS": "0.5", "BEQUEST_SWEEP_SECONDS": "0.5"}
OUTSIDE = ("DATABASE_URL", "BROKER_URL", "INFERENCE_URL", "BEQUEST_DATA")


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return found


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    # Predictions need Keras, which takes seconds to import and is not what is looked at here.
    return {**kept, **LIGHT, **QUICK, "INFERENCE_URL": "http://127.0.0.1:9", **more}


def bequest(*arguments: str, settings: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("bequest"), *arguments],
        env=environment(**settings or {}),
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


@pytest.mark.parametrize("command", ["serve", "worker", "demo", "examples", "sweep"])
def test_settings_that_mean_nothing_are_told_in_a_line_each(command: str) -> None:
    process = bequest(command, settings={"BEQUEST_MAX_QUEUED": "many", "BEQUEST_GRACE_SECONDS": "0"})
    said = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 2
    assert [line.split(":")[1] for line in said] == [" BEQUEST_GRACE_SECONDS", " BEQUEST_MAX_QUEUED"]


def test_a_lease_that_a_late_beat_would_outlive_is_refused() -> None:
    process = bequest("serve", settings={"BEQUEST_LEASE_SECONDS": "1"})
    (said,) = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 2
    assert "BEQUEST_LEASE_SECONDS is 1 and BEQUEST_BEAT_SECONDS 0.5" in said


@pytest.fixture
def home(run_dir: Path) -> Path:
    return run_dir / "served"


@pytest.fixture
def serving(home: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], httpx.Client]]]:
    """Starts the service on one folder, as often as called."""
    started: list[subprocess.Popen[str]] = []
    clients: list[httpx.Client] = []

    def start(**more: Any) -> tuple[subprocess.Popen[str], httpx.Client]:
        port = free_port()
        process = bequest("serve", "--data", str(home), "--port", str(port), **more)
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


@slow
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


@slow
def test_a_child_that_dies_is_started_again(serving: Any, home: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, client = serving(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)))
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
    (again,) = [row["pid"] for row in client.get("/v1/workers").json()["data"] if programs.runs(row["pid"], "worker")]
    files = resource.prlimit(again, resource.RLIMIT_NOFILE)
    assert files == (min(hard, 65_536), hard), "as many as it may have"


@slow
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


# --- only our code is run --------------------------------------------------------------------------------------------

FOREIGN = (
    "sitecustomize",
    "queue",
    "types",
    "celery",
    "celeryconfig",
    "uvicorn",
    "worker/__init__",
    "app/__init__",
    "migrations/__init__",
)


@slow
def test_where_somebody_stands_is_no_place_for_our_code(serving: Any, tmp_path: Path, home: Path) -> None:
    """A folder that all may write to, or that of another project with FastAPI, whose package is called `app` as well."""
    for name in FOREIGN:
        module = tmp_path / f"{name}.py"
        module.parent.mkdir(exist_ok=True)
        module.write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + chr(10))")
    (tmp_path / "app" / "main.py").write_text(
        "from fastapi import FastAPI\napp = FastAPI()\n"
        "@app.get('/healthz')\ndef healthz(): return {'status': 'I am another project'}\n"
    )
    (tmp_path / "worker" / "main.py").write_text("raise SystemExit('another worker')")
    _, client = serving(cwd=tmp_path)
    assert client.get("/healthz").json() == {"status": "ok", "version": programs.version()}
    assert succeeded(client, submit(client, steps=2))["attempt"] == 1
    folders = {
        str(Path(f"/proc/{pid}/cwd").readlink())
        for pid in processes_with(str(home))
        if Path(sys.executable).with_name("bequest").name not in Path(f"/proc/{pid}/cmdline").read_text()
    }
    assert str(tmp_path) not in folders
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@slow
def test_a_worker_of_its_own_takes_no_module_from_where_somebody_stands(
    serving: Any, tmp_path: Path, home: Path
) -> None:
    _, client = serving()
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a')")
    (before,) = client.get("/v1/workers").json()["data"]
    addresses = {
        name: value
        for name, _, value in (
            part.partition("=") for part in Path(f"/proc/{before['pid']}/environ").read_text().split("\0")
        )
        if name in OUTSIDE
    }
    with bequest("worker", settings=addresses, cwd=tmp_path) as process:
        try:
            wait_for(lambda: len(client.get("/v1/workers").json()["data"]) == 2)
        finally:
            process.terminate()
    assert not (tmp_path / "ran").exists()


def test_python_m_is_refused_where_it_would_take_modules_from_the_working_folder() -> None:
    for flags, status in (((), 1), (("-P",), 0)):
        command = [sys.executable, *flags, "-m", "app.cli", "--help"]
        run = subprocess.run(command, cwd=programs.CODE, capture_output=True, text=True, check=False)
        assert run.returncode == status
        assert ("run `bequest`" in run.stderr) is bool(status)


def test_another_service_on_the_port_is_not_taken_for_ours() -> None:
    answers: dict[str, tuple[dict[str, str], str]] = {
        "ours": ({"bequest-instance": "this"}, json.dumps({"status": "ok", "version": programs.version()})),
        "another bequest": ({"bequest-instance": "that"}, json.dumps({"status": "ok", "version": programs.version()})),
        "an older one": ({}, json.dumps({"status": "ok", "version": programs.version()})),
        "another project": ({"bequest-instance": "this"}, json.dumps({"status": "I am another project"})),
        "a list": ({"bequest-instance": "this"}, "[]"),
        "no JSON": ({"bequest-instance": "this"}, "<html>"),
    }
    names = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers, body = answers[names[int(self.path.split("/")[1])]]
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        addresses = [f"http://127.0.0.1:{server.server_port}/{number}" for number in range(len(names))]
        taken = [name for name, address in zip(names, addresses, strict=True) if _is_ours(_healthz(address), "this")]
        server.shutdown()
    assert taken == ["ours"]
    assert not _is_ours(_healthz(addresses[0]), "this"), "nobody listens there any more"


# --- frozen ----------------------------------------------------------------------------------------------------------


@slow
def test_a_frozen_api_is_replaced_and_keeps_nobody_from_stopping(serving: Any, home: Path, tmp_path: Path) -> None:
    # As `bequest` does, but for the patience.
    command = tmp_path / "impatient"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom app import programs, serve\nfrom app.cli import main\n"
        "programs.ROUND_SECONDS, serve._API_FROZEN_AFTER = 1.0, 4.0\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    process, client = serving(executable=command)

    def api() -> int:
        (pid,) = [pid for pid in processes_with(str(home)) if b"uvicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return pid

    first = api()
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: not programs.runs(first, "uvicorn"), 30)
    client.close()  # its connections led to the one that is gone
    with httpx.Client(base_url=client.base_url, trust_env=False, timeout=5) as again:
        wait_for(lambda: _healthz(str(again.base_url).rstrip("/")), 60)
        assert succeeded(again, submit(again, steps=2))

    os.kill(api(), signal.SIGSTOP)
    began = time.monotonic()
    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert process.returncode == 0
    assert f"the API has not answered for 4 s and was killed; again in 1 s. Log: {home}/logs/api.log" in said
    assert not processes_with(str(home))


# --- asked to stop, and asked again ----------------------------------------------------------------------------------


@pytest.fixture
def requests() -> Iterator[_Requests]:
    """What real signals to this process have asked for."""
    heard = _Requests()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, heard.hear) for number in numbers}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


def press(*numbers: int, pause: float = 0.0) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(pause)


def test_signals_in_quick_succession_are_one_request(requests: _Requests) -> None:
    press(signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGINT, pause=0.1)
    assert (requests.stop, requests.to_warn, requests.skip) == (True, False, False)


def test_only_ctrl_c_skips_a_checkpoint_and_only_after_the_warning(
    requests: _Requests, capsys: pytest.CaptureFixture[str]
) -> None:
    press(*[signal.SIGTERM, signal.SIGHUP] * 3, pause=0.6)
    assert (requests.stop, requests.to_warn, requests.skip) == (True, False, False)
    press(signal.SIGINT, pause=0.6)
    assert (requests.to_warn, requests.skip) == (True, False)
    for _ in range(2):
        requests.warn(7.2)
    (said,) = capsys.readouterr().out.splitlines()
    assert "still writing its checkpoint (7 s at most). Press Ctrl-C again within 5 s to give that up" in said
    press(signal.SIGTERM, pause=0.6)
    assert not requests.skip
    press(signal.SIGINT)
    assert requests.skip


def test_a_late_ctrl_c_is_warned_again(requests: _Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.serve._SKIP_SECONDS", 1.0)
    press(signal.SIGINT, signal.SIGINT, pause=0.6)
    requests.to_warn = False
    time.sleep(1.0)
    press(signal.SIGINT, pause=0.6)
    assert (requests.to_warn, requests.skip) == (True, False)


@slow
def test_an_impatient_ctrl_c_costs_no_attempt_and_one_after_the_warning_gives_up(serving: Any) -> None:
    grace = {"BEQUEST_GRACE_SECONDS": "4"}  # all of which this job takes: it writes its checkpoint and does not end
    process, client = serving(settings=grace)
    job_id = submit(client, steps=5000, step_seconds=0.05, behave="linger")
    for pauses in ((0.15, 0.0), (0.7, 0.7, 0.0)):
        wait_for(lambda client=client: (job(client, job_id)["progress"] or {}).get("step", 0) >= 10)
        for pause in pauses:
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert ("Press Ctrl-C again within 5 s" in said) is (len(pauses) == 3)
        process, client = serving(settings=grace)
        wait_for(lambda client=client: job(client, job_id)["state"] == "running")
    attempts = client.get(f"/v1/jobs/{job_id}/attempts").json()["data"]
    assert [one["outcome"] for one in attempts] == ["drained", "worker_lost", None]
    assert client.post(f"/v1/jobs/{job_id}/cancel", json={"discard": True}).status_code in (200, 202)
