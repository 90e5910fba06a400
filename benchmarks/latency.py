"""How long from POST to the first training step, with a warm spare and without: `python benchmarks/latency.py [-n 5]`.

Starts a service of its own in a temporary folder. "warm": the worker's spare has imported Keras before the job comes.
"cold": there is no spare, so the import of Keras and TensorFlow is paid for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from app.demo import _free_port as free_port
from app.demo import _ready as ready

JOB = {
    "kind": "transfer",
    "dataset": "digits",
    "source": {"train": {"dataset": "digits", "architecture": "cnn-small", "training": {"steps": 3}}},
    "strategy": "initialize",
    "training": {"steps": 3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-n", type=int, default=5, help="jobs of each sort")
    count = parser.parse_args().n
    with served() as client:
        spare_is_ready(client)
        first_step(client)  # its network is traced, by a program that imports Keras for it: from here on it is known
        warm, cold = [], []
        for _ in range(count):
            spare_is_ready(client)
            warm.append(first_step(client))
        for _ in range(count):
            spare_is_ready(client)
            kill_spare(client)
            cold.append(first_step(client))
    tell("warm spare", warm)
    tell("cold import", cold)
    sys.stdout.write(f"ratio {statistics.median(cold) / statistics.median(warm):.1f}\n")


@contextmanager
def served(timeout: float = 30) -> Iterator[httpx.Client]:
    """A client of a service of its own, in a temporary folder, which is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bequest-benchmark-", dir="/tmp"))
    address = f"http://127.0.0.1:{(port := free_port())}"
    outside = ("DATABASE_URL", "BROKER_URL", "INFERENCE_URL")
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--data", str(folder), "--port", str(port)]
    service = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        with httpx.Client(base_url=address, trust_env=False, timeout=timeout) as client:
            wait_for(lambda: ready(address))
            yield client
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(40)
        shutil.rmtree(folder, ignore_errors=True)


def first_step(client: httpx.Client) -> float:
    """Seconds from POST until GET shows the progress of the first optimizer step; the job is run to its end."""
    began = time.monotonic()
    job_id = client.post("/v1/jobs", json=JOB).raise_for_status().json()["id"]
    wait_for(lambda: client.get(f"/v1/jobs/{job_id}").json()["progress"])
    took = time.monotonic() - began
    wait_for(lambda: client.get(f"/v1/jobs/{job_id}").json()["finished_at"])
    return took


def spare_is_ready(client: httpx.Client) -> None:
    """Until the worker's children use no processor time any more: the spare has imported all that it will."""
    (worker,) = [row["pid"] for row in client.get("/v1/workers").json()["data"]]

    def used() -> int:
        children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        return sum(
            sum(map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]))
            for child in children
        )

    before, quiet_since = -1, time.monotonic()
    while time.monotonic() - quiet_since < 2:
        now = used()
        if now > before + 2:
            quiet_since = time.monotonic()
        before = now
        time.sleep(0.2)


def kill_spare(client: httpx.Client) -> None:
    """The next job must wait for a trainer that imports Keras from the start."""
    (worker,) = [row["pid"] for row in client.get("/v1/workers").json()["data"]]
    for child in Path(f"/proc/{worker}/task/{worker}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing within {seconds:.0f} s")
        time.sleep(0.01)


def tell(name: str, seconds: list[float]) -> None:
    sys.stdout.write(
        f"{name}: median {statistics.median(seconds):.2f} s of {len(seconds)}, {min(seconds):.2f} to {max(seconds):.2f} s\n"
    )


if __name__ == "__main__":
    main()
