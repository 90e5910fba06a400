"""Jobs over HTTP for a person at a terminal: a service of its own, every call as a line of curl, a bar for each job, a table at the end.

Nothing here is known to the service: it is a client, which `bequest demo` and `bequest examples` share.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from app.embedded import short_folder
from app.programs import die_with_parent, safe_path

_OVER = ("succeeded", "failed", "cancelled")
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_QUIET_SECONDS = 1800.0


class Broken(Exception):
    """It cannot go on; its message says why."""


def run(command: str, keep: bool, shown: Callable[[httpx.Client, Console], bool]) -> int:
    """Starts a service in a temporary folder and has something `shown` with it; the exit status of `bequest COMMAND`, 0 where that is true.

    `keep`: the service then goes on until Ctrl-C.
    """
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix=f"bequest-{command}-", dir=short_folder()))
    began = time.monotonic()
    try:
        with (
            service(folder, console) as address,
            httpx.Client(base_url=address, timeout=60, trust_env=False) as client,
        ):
            type_line(console, f"$ S={client.base_url}\n")
            done = shown(client, console)
            console.print(f"\n{time.monotonic() - began:.0f} s in all, the service's start included.")
            if keep:
                console.print(f"The service goes on at {address} (reference: {address}/docs). Ctrl-C stops it.")
                with suppress(KeyboardInterrupt):
                    signal.pause()
        return 0 if done else 1
    except Broken as fault:
        console.print(Text(f"bequest {command}: {fault}", style="red"), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def service(folder: Path, console: Console) -> Iterator[str]:
    """`bequest serve` on a free port; stopped at the end."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    type_line(console, f"$ bequest serve --data {folder} --port {port}")
    outside = ("DATABASE_URL", "BROKER_URL", "INFERENCE_URL", "BEQUEST_DATA")
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--data", str(folder), "--port", str(port)],
        env=safe_path({name: value for name, value in os.environ.items() if name not in outside}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one system call, no lock taken
    )
    try:
        until = time.monotonic() + _START_SECONDS
        while not _ready(address):
            if process.poll() is not None:
                assert process.stdout is not None
                raise Broken(process.stdout.read().decode(errors="replace").strip() or "the service did not start")
            if time.monotonic() > until:
                raise Broken(f"the service was not ready within {_START_SECONDS:.0f} s; its logs are in {folder}/logs")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(address: str) -> bool:
    """Whether the service answers and a worker has said that it lives."""
    try:
        answer = httpx.get(f"{address}/readyz", timeout=2, trust_env=False)
        return answer.status_code == httpx.codes.OK and bool(answer.json().get("workers_online"))
    except (httpx.HTTPError, ValueError):
        return False


def submit(client: httpx.Client, body: dict[str, Any], console: Console) -> str:
    type_line(console, f"$ curl --json '{json.dumps(body)}' $S/v1/jobs")
    answer = client.post("/v1/jobs", json=body)
    if answer.status_code != httpx.codes.ACCEPTED:
        raise Broken(f"POST /v1/jobs answered {answer.status_code}: {answer.text}")
    job = answer.json()
    console.print(f"  {answer.status_code} {job['id']} {job['state']}")
    return str(job["id"])


def ended_well(
    client: httpx.Client, ids: Sequence[str], console: Console, labels: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Follows jobs until all are over, tells why some did not succeed, and returns those that did. `labels`: {id: what a bar is called}."""
    type_line(
        console, f"\n$ curl $S/v1/jobs/{ids[0]}   # again and again, for the bars below; or follow the events of one:"
    )
    type_line(console, f"$ curl -N -H 'accept: text/event-stream' $S/v1/jobs/{ids[0]}/events")
    ended = follow(client, ids, console, labels or {})
    for job in ended:
        if job["state"] != "succeeded":
            error = job["error"] or {}
            why = f"{job['name']}: {job['state']}: {error.get('message')}. {error.get('hint')}"
            console.print(Text(why, style="red"), soft_wrap=True)
    return [job for job in ended if job["state"] == "succeeded"]


def follow(
    client: httpx.Client, ids: Sequence[str], console: Console, labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A bar for each job until all are over; on no terminal, a line for each stage."""
    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[about]}"),
    )
    seen: dict[str, tuple[str, str | None]] = {}
    jobs: dict[str, dict[str, Any]] = {}
    changed = time.monotonic()
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        rows: dict[str, TaskID] = {}
        while len(jobs) < len(ids) or any(job["state"] not in _OVER for job in jobs.values()):
            for job_id in ids:
                if jobs.get(job_id, {}).get("state") in _OVER:
                    continue
                job = jobs[job_id] = client.get(f"/v1/jobs/{job_id}").json()
                if job_id not in rows:
                    rows[job_id] = bars.add_task(labels.get(job_id, job["kind"]), total=1.0, about="")
                status = (job["state"], job["stage"])
                if seen.get(job_id) != status:
                    seen[job_id], changed = status, time.monotonic()
                    if not console.is_terminal:
                        label = labels.get(job_id, job["kind"])
                        bars.console.print(f"{label}: {job['state']} {job['stage'] or ''}".rstrip())
                fraction = 1.0 if job["state"] == "succeeded" else (job["progress"] or {}).get("fraction", 0.0)
                bars.update(rows[job_id], completed=fraction, about=about(job))
            if time.monotonic() - changed > _QUIET_SECONDS:
                raise Broken("no job has moved for half an hour")
            time.sleep(0.4)
    return [jobs[job_id] for job_id in ids]


def about(job: dict[str, Any]) -> str:
    """Stage, epoch, one metric and the time left, in a line."""
    if job["state"] != "running":
        return str(job["state"])
    progress, latest = job["progress"] or {}, job["latest"] or {}
    parts = [str(job["stage"] or "starts")]
    if progress.get("epoch") is not None:
        parts.append(f"epoch {progress['epoch']}/{progress.get('epochs') or '?'}")
    stage = job["stage"] or ""
    own = {
        name: value
        for name, value in latest.items()
        if name.startswith(f"{stage}/") or (stage == "target" and "/" not in name)
    }
    shown = next(
        (name for name in sorted(own, key=lambda name: ("accuracy" not in name, "val_" not in name, name))), None
    )
    if shown is not None and own[shown] is not None:
        parts.append(f"{shown.removeprefix(f'{stage}/')} {own[shown]:.3f}")
    if progress.get("eta_seconds") is not None:
        parts.append(f"{progress['eta_seconds']:.0f} s left")
    return " · ".join(parts)


def results(
    client: httpx.Client, done: Sequence[dict[str, Any]], console: Console, labels: Mapping[str, str] | None = None
) -> None:
    """A table of the jobs' held-out results, a sentence for each, and what can be downloaded of the first. `labels`: {id: its name}, of
    jobs by application; else jobs are told apart by their kinds, and files by their sizes."""
    type_line(console, f"\n$ curl $S/v1/jobs/{done[0]['id']}/report")
    table = Table(title="Held-out results", title_justify="left", title_style="bold", box=SIMPLE, show_edge=False)
    table.padding = (0, 1, 0, 0)  # it fits a terminal of 80 columns
    last = ["file"] if labels is None else []
    for column in ("job", "task", "method", "control", "Δ", "verdict", *last):
        table.add_column(column, no_wrap=True)
    sentences = []
    for job in done:
        report = client.get(f"/v1/jobs/{job['id']}/report").json()
        label = job["kind"] if labels is None else labels[job["id"]]
        sentences.append((label, report["sentence"]))
        about = [_sizes(client, job["id"])] if labels is None else []
        for name, task in report["verdict"]["tasks"].items():
            means = _mean(task["treated"]), _mean(task["control"]), _mean(task["delta"], signed=True)
            table.add_row(label, name, *means, _verdict(task["decision"]), *about)
            label, about = "", [""] * len(about)
        table.add_section()
    console.print(table)
    for label, sentence in sentences:
        console.print(Text.assemble((label, "bold"), f": {sentence}"), soft_wrap=not console.record)
    type_line(console, f"\n$ curl -OJ $S/v1/jobs/{done[0]['id']}/artifacts.zip")
    held = client.get(f"/v1/jobs/{done[0]['id']}/artifacts.zip")
    console.print(f"  {held.status_code} {len(held.content):,} bytes: models, manifests, report, metrics and log")


def _sizes(client: httpx.Client, job_id: str) -> str:
    """The size of a job's model, beside its teacher's."""
    files = {file["name"]: file["bytes"] for file in client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]}
    size = _size(files.get("model.keras"))
    return f"{size.removesuffix(' kB')} of {_size(files['teacher.keras'])}" if "teacher.keras" in files else size


def type_line(console: Console, line: str) -> None:
    """A line as a person would type it; brackets in it are no markup."""
    console.print(Text(line, style="bold"), soft_wrap=True)


def _verdict(decision: str) -> Text:
    return Text(decision, style={"helped": "bold green", "hurt": "bold red"}.get(decision, ""))


def _mean(values: dict[str, Any], signed: bool = False) -> str:
    mean = values.get("mean")
    return "–" if mean is None else f"{mean:+.3f}" if signed else f"{mean:.3f}"


def _size(length: int | None) -> str:
    return "–" if length is None else f"{length / 1000:,.0f} kB"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
