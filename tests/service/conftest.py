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


@dataclass
class Service:
    """A running `bequest serve`. `client` speaks to it; `stop` and `kill` end it; `start` begins it again on the same folder."""

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
        log = (self.data.parent / f"{self.data.name}.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--workers", str(self.workers)],
            stdout=log,
            stderr=log,
            env=os.environ | self.env,
            start_new_session=True,
        )
        self.wait(self.ready, 90, "the service is ready")
        return self

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"serve ended with {self.process.returncode}: {self.log()[-3000:]}")
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text(errors="replace")

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
            found.update(self.client.get(f"/v1/jobs/{job_id}").raise_for_status().json())
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


@pytest.fixture(scope="session")
def service(run_dir: Path) -> Iterator[Service]:
    """One service for all tests that only use it."""
    running = Service(run_dir / "service", free_port()).start()
    yield running
    running.stop()
