"""The whole service as a person starts it: `bequest serve` on a folder of its own, spoken to over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

OWN_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith("BEQUEST_") and not name.endswith("_URL")
}
"""Taken before other tests point the environment to their servers: this service starts its own."""


@dataclass
class Service:
    """A running `bequest serve`. `stop` ends it; `start` begins it again on the same folder."""

    data: Path
    port: int
    workers: int = 1
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Service:
        command = [
            str(Path(sys.executable).parent / "bequest"),
            "serve",
            "--port",
            str(self.port),
            "--data",
            str(self.data),
        ]
        with self.logfile.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", str(self.workers)],
                stdout=log,
                stderr=log,
                env=OWN_ENVIRONMENT | self.env,
                start_new_session=True,
            )
        self.wait(self.ready, 90, "the service is ready")
        return self

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def logfile(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """`body` is sent as JSON; `files` and `data` are sent as a form."""
        return self.request("POST", path, json=body, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.address + path, **{"timeout": 60, **options})

    def ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"serve ended with {self.process.returncode}: {self.log()[-3000:]}")
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        return self.logfile.read_text(errors="replace")

    def wait(self, done: Any, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s still not: {what}\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def finished(self, job_id: str, seconds: float = 240) -> dict[str, Any]:
        """The job once it has ended."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.get(f"/v1/jobs/{job_id}").raise_for_status().json())
            return found["state"] in ("succeeded", "failed", "cancelled")

        self.wait(ended, seconds, f"{job_id} has ended")
        return found

    def stop(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Ends it; the seconds that took."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(40)
        return time.monotonic() - begun


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def service(run_dir: Path) -> Iterator[Service]:
    """One service for all tests of this package, with servers of its own."""
    running = Service(run_dir / "service", free_port()).start()
    yield running
    running.stop()
