"""Sends bad requests by the thousand and holds every answer to what the service promises of refusals."""

from __future__ import annotations

import json
import os
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app import artifacts, jobs, models, pipelines
from app.db import transaction
from app.settings import settings
from app.spec.models import Manifest
from app.states import JobState
from app.tables import Row, Traced
from tests.faults.requests_corpus import World, request
from tests.faults.requests_line import NOT_HTTP, Answer, Connect, Request, fault_in, send

MOST_GROWTH_MIB = 64
LINES = 4
WARM_UP = 200

REPORT = Path(__file__).parents[1] / "app" / "reports" / "transfer.json"
"""Of a real job."""


def run(seed: int, count: int, connect: Connect, pid: int | None = None) -> dict[str, Any]:
    """Sends `count` bad requests to an API whose database and store this process reaches too, and where no worker runs.

    Args:
        connect: opens a connection to the API.
        pid: the API's process, for its memory; None leaves that figure out.

    Returns:
        The figures; `violations` holds what should not have happened, each with the number that makes the request again:
        `requests_corpus.request(world, seed, number)`.
    """
    with tempfile.TemporaryDirectory(prefix="bq-", dir="/tmp") as folder:
        world, clean_up = _world(connect, Path(folder))
    before, violations, lock = _stored(), [], threading.Lock()
    statuses: Counter[str] = Counter()
    families: Counter[str] = Counter()
    memory: list[int] = []

    def one(number: int) -> None:
        bad = request(world, seed, number)
        answer = send(connect, bad)
        fault = fault_in(bad, answer)
        with lock:
            families[bad.what.partition(",")[0]] += 1
            statuses[_said(bad, answer)] += 1
            if fault:
                violations.append(f"request {number} ({bad.what}): {fault}: {bad.raw[:200]!r}")
            if pid is not None and number >= WARM_UP and number % 50 == 0:
                memory.append(_resident(pid))

    with ThreadPoolExecutor(LINES) as lines:
        list(lines.map(one, range(count)))
    if (
        send(connect, Request("a sound one", b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
        is None
    ):
        violations.append("the service does not answer any more")
    after = _stored()
    violations += [f"{name} has changed" for name in before if before[name] != after[name]]
    growth = (max(memory) - memory[0]) / 2**20 if memory else None
    if growth is not None and growth > MOST_GROWTH_MIB:
        violations.append(f"the API grew by {growth:.0f} MiB")
    clean_up()
    return {
        "requests": count,
        "operations": len(world.operations),
        "families": dict(sorted(families.items())),
        "statuses": dict(sorted(statuses.items())),
        "server_errors": sum(number for status, number in statuses.items() if status.startswith("5")),
        "unanswered": statuses["none"],
        "growth_mib": None if growth is None else round(growth, 1),
        "violations": violations,
    }


def at_port(port: int) -> Connect:
    return lambda: socket.create_connection(("127.0.0.1", port), 60)


def at_socket(path: Path) -> Connect:
    def connect() -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(60)
        until = time.monotonic() + 60
        while True:
            try:
                line.connect(str(path))
            except BlockingIOError:  # as many wait as may: a system asks a TCP port again by itself
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return line

    return connect


def _said(bad: Request, answer: Answer | None) -> str:
    if not bad.heard:
        return "went away"
    if answer is None:
        return "none"
    return "400, bare" if answer.body == NOT_HTTP else str(answer.status)


# --- what there is before, and must be there afterwards --------------------------------------------------------------


def _world(connect: Connect, folder: Path) -> tuple[World, Callable[[], None]]:
    """A finished job with a file and a model, a queued one, and a pipeline of another; and what removes them."""
    document, catalog = (_get(connect, path) for path in ("/openapi.json", "/v1/catalog"))
    bodies = [
        entry["example"]
        for name, entry in catalog["kinds"].items()
        if name in ("transfer", "multitask", "distillation")
    ]
    # First: the API has the networks traced, which are then known here as well.
    resolved = [_post(connect, "/v1/jobs/validate", body)["resolved_spec"] for body in bodies]
    finished = finished_job(bodies[0], folder)
    with transaction() as session:
        queued = jobs.submit(session, bodies[1]).id
        pipeline, _ = pipelines.submit(session, {"steps": {"one": bodies[1]}})
        (step, _), *_ = pipeline.steps
        pipeline_id, of_step = step.pipeline_id, str(step.job_id)
    ids = {
        "job_id": [finished, queued],
        "pipeline_id": [pipeline_id],
        "name": ["model.keras"],
        "dataset_id": ["digits", "wine"],
        "ref": [f"job:{finished}"],
    }

    def clean_up() -> None:
        with transaction() as session:
            jobs.cancel(session, queued)
            pipelines.cancel(session, pipeline_id)
            pipelines.delete(session, pipeline_id)
            for job in (queued, of_step, finished):
                jobs.delete(session, job)

    return World(document, catalog, ids, [*bodies, *resolved]), clean_up


def finished_job(body: Any, folder: Path) -> str:
    """A job that has succeeded, in an empty queue, with a model and a file of each media type; its id."""
    with transaction() as session:
        job_id = jobs.submit(session, body).id
        job = jobs.get(session, job_id)
        job.priority = 9
    claim = jobs.claim("requests")
    assert claim is not None
    assert claim.job_id == job_id, "a queue that is not empty"
    (folder / "model.keras").write_bytes(random.Random(0).randbytes(10_000))
    stored = artifacts.keep_file(folder / "model.keras")
    manifest = Manifest.model_validate(
        {
            "role": "model",
            "architecture": {"arch": "cnn"},
            "input": {"kind": "image", "shape": [28, 28, 1], "scale": 255.0},
            "tasks": {"digit": {"type": "multiclass", "column": "digit", "classes": list("0123456789"), "units": 10}},
            "heads": {"digit": {}},
            "layers": ["conv1"],
            "parameters": 1,
            "sha256": stored.sha256,
            "versions": {},
        }
    )
    with transaction() as session:
        job = jobs.fence(session, claim)
        artifacts.add(session, job_id, claim.attempt, "model.keras", stored)
        for suffix in artifacts.MEDIA_TYPES:
            artifacts.add(session, job_id, claim.attempt, f"report{suffix}", artifacts.keep_file(REPORT))
        models.keep(session, job, job.attempt, "model", stored, None, manifest, [])
        jobs.finish(session, claim, JobState.SUCCEEDED, reason="done")
    return job_id


def _stored() -> dict[str, Any]:
    """All rows of all tables but what is known of networks, which is looked up again for anybody who asks, and all files: by their hash
    and their names."""
    found: dict[str, Any] = {}
    with transaction() as session:
        for table in Row.metadata.sorted_tables:
            if table.name == Traced.__tablename__:
                continue
            query = (
                f"SELECT count(*), md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table.name} AS t"
            )
            found[f"table {table.name}"] = tuple(session.execute(text(query)).one())
    for folder in (settings().store, settings().jobs_dir):
        found[f"folder {folder.name}"] = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    return found


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _get(connect: Connect, path: str) -> Any:
    return _answer(connect, f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())


def _post(connect: Connect, path: str, body: Any) -> Any:
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    return _answer(connect, head.encode() + raw)


def _answer(connect: Connect, raw: bytes) -> Any:
    answer = send(connect, Request("a sound one", raw))
    assert answer is not None
    assert answer.status == 200, answer.body
    return json.loads(answer.body)
