"""Predictions with large bodies, of several clients at once: `python benchmarks/predictions.py [--clients 12] [--each 3]`.

Each body is 1,024 rows of 28×28 pixels as text, 3.0 MB. Starts a service of its own in a temporary folder and trains a small
network on a data set of such pictures; while the clients ask, an ordinary client asks /healthz ten times a second.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np

from benchmarks.latency import served, wait_for

ROWS, SIDE, SEED = 1024, 28, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--each", type=int, default=3, help="requests of each client, one after the other")
    asked = parser.parse_args()
    with served(timeout=300) as client:
        measure(client, asked.clients, asked.each)


def measure(client: httpx.Client, clients: int, each: int) -> None:
    pixels = np.random.default_rng(SEED).integers(0, 256, (ROWS, SIDE, SIDE), np.uint8)
    path = f"/v1/models/job:{trained(client, pixels)}/predict"
    body = json.dumps({"inputs": pixels.tolist()}, separators=(",", ":")).encode()
    headers = {"content-type": "application/json"}

    def ask(_: int) -> tuple[int, float]:
        began = time.monotonic()
        answer = client.post(path, content=body, headers=headers)
        return answer.status_code, time.monotonic() - began

    ask(0)  # the model is loaded
    alone = [ask(0)[1] for _ in range(5)]
    health: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            began = time.monotonic()
            client.get("/healthz").raise_for_status()
            health.append(time.monotonic() - began)

    looking = threading.Thread(target=look)
    looking.start()
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as threads:
        answers = list(threads.map(ask, range(clients * each)))
    took = time.monotonic() - began
    over.set()
    looking.join()
    seconds = [each for _, each in answers]
    sys.stdout.write(
        f"body {len(body) / 1e6:.1f} MB, {ROWS} rows of {SIDE}×{SIDE}\n"
        f"one client: median {statistics.median(alone):.2f} s of {len(alone)}\n"
        f"{clients} clients: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, "
        f"{len(answers)} answers in {took:.1f} s, statuses {dict(Counter(status for status, _ in answers))}\n"
        f"/healthz meanwhile: median {1000 * statistics.median(health):.0f} ms, longest {max(health):.2f} s\n"
    )


def trained(client: httpx.Client, pixels: np.ndarray[Any, Any]) -> str:
    """The job that made the model. What it learned does not matter here."""
    file = io.BytesIO()
    np.savez(file, x=pixels[..., None], y=np.arange(len(pixels)) % 10)
    sent = {"file": ("noise.npz", file.getvalue())}
    dataset = client.post("/v1/datasets", files=sent).raise_for_status().json()["id"]
    brief = {"dataset": dataset, "training": {"steps": 3}}
    source = {"train": {**brief, "architecture": "cnn-small"}}
    job = {**brief, "kind": "transfer", "source": source, "strategy": "initialize"}
    answer = client.post("/v1/jobs", json=job)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    job_id: str = answer.json()["id"]
    wait_for(lambda: client.get(f"/v1/jobs/{job_id}").json()["finished_at"], 300)
    return job_id


if __name__ == "__main__":
    main()
