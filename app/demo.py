"""`bequest demo`: a service of its own in a temporary folder, three jobs over HTTP, and what came of them.

Every call is shown as a line of curl that could be typed instead. Nothing here is known to the service: it is a client.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
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


def jobs(quick: bool) -> list[dict[str, Any]]:
    """The three experiments; `quick` has one pair each, from which nothing can be concluded."""
    control = {"seeds": 1 if quick else 5}
    return [
        {
            "kind": "transfer",
            "name": "strokes to handwriting",
            "dataset": "digits",
            "limit_train_examples": {"per_class": 5},
            "source": {"train": {"dataset": "strokes", "training": {"steps": 300}}},
            "training": {"steps": 150},
            "control": control,
        },
        {
            "kind": "multitask",
            "name": "digit, parity and size",
            "dataset": "digits",
            "tasks": {
                "digit": {"column": "digit", "limit_train_labels": 50},
                "odd": {"column": "odd", "limit_train_labels": 1000},
                "at_least_5": {"column": "at_least_5", "limit_train_labels": 1000},
            },
            "training": {"steps": 300},
            "control": {**control, "primary": "digit"},
        },
        {
            "kind": "distillation",
            "name": "93,322 parameters to 2,258",
            "dataset": "digits",
            "limit_train_examples": 100,
            "teacher": {
                "train": {
                    "dataset": "digits",
                    "architecture": "cnn",
                    "limit_train_examples": 1000,
                    "training": {"steps": 150},
                }
            },
            "student": "cnn-small",
            "unlabelled": "digits",
            "training": {"steps": 300},
            "control": control,
        },
    ]


def demo(*, quick: bool, keep: bool, picture: Path | None = None) -> int:
    """0 when all three jobs succeeded and the service answered a prediction. `picture`: an SVG of the last page is written there."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="bequest-demo-", dir=short_folder()))
    began = time.monotonic()
    try:
        with (
            _service(folder, console) as address,
            httpx.Client(base_url=address, timeout=60, trust_env=False) as client,
        ):
            done = _show(client, quick, console, picture)
            console.print(f"\n{time.monotonic() - began:.0f} s in all, the service's start included.")
            if keep:
                console.print(f"The service goes on at {address} (reference: {address}/docs). Ctrl-C stops it.")
                with suppress(KeyboardInterrupt):
                    signal.pause()
        return 0 if done else 1
    except _Broken as fault:
        console.print(Text(f"bequest demo: {fault}", style="red"), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Broken(Exception):
    """The demo cannot go on; its message says why."""


@contextmanager
def _service(folder: Path, console: Console) -> Iterator[str]:
    """`bequest serve` on a free port; stopped at the end."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    _type(console, f"$ bequest serve --data {folder} --port {port}")
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
                raise _Broken(process.stdout.read().decode(errors="replace").strip() or "the service did not start")
            if time.monotonic() > until:
                raise _Broken(f"the service was not ready within {_START_SECONDS:.0f} s; its logs are in {folder}/logs")
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


def _show(client: httpx.Client, quick: bool, console: Console, picture: Path | None) -> bool:
    _type(console, f"$ S={client.base_url}\n")
    ids = [_submit(client, body, console) for body in jobs(quick)]
    _type(
        console, f"\n$ curl $S/v1/jobs/{ids[0]}   # again and again, for the bars below; or follow the events of one:"
    )
    _type(console, f"$ curl -N -H 'accept: text/event-stream' $S/v1/jobs/{ids[0]}/events")
    ended = _follow(client, ids, console)
    good = [job for job in ended if job["state"] == "succeeded"]
    for job in ended:
        if job not in good:
            error = job["error"] or {}
            why = f"{job['name']}: {job['state']}: {error.get('message')}. {error.get('hint')}"
            console.print(Text(why, style="red"), soft_wrap=True)
    if good:
        _table(client, good, console)
    if len(good) == len(ids):
        _predict(client, good[0]["id"], console)
        if picture is not None:
            page = Console(
                record=True,
                file=io.StringIO(),
                width=112,
                color_system="truecolor",
                force_terminal=True,
                highlight=False,
            )
            _table(client, good, page)
            _predict(client, good[0]["id"], page)
            picture.write_text(_without_download(page.export_svg(title="./dev demo")), encoding="utf-8")
    return len(good) == len(ids)


def _submit(client: httpx.Client, body: dict[str, Any], console: Console) -> str:
    _type(console, f"$ curl --json '{json.dumps(body)}' $S/v1/jobs")
    answer = client.post("/v1/jobs", json=body)
    if answer.status_code != httpx.codes.ACCEPTED:
        raise _Broken(f"POST /v1/jobs answered {answer.status_code}: {answer.text}")
    job = answer.json()
    console.print(f"  {answer.status_code} {job['id']} {job['state']}")
    return str(job["id"])


def _follow(client: httpx.Client, ids: Sequence[str], console: Console) -> list[dict[str, Any]]:
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
                    rows[job_id] = bars.add_task(job["kind"], total=1.0, about="")
                status = (job["state"], job["stage"])
                if seen.get(job_id) != status:
                    seen[job_id], changed = status, time.monotonic()
                    if not console.is_terminal:
                        bars.console.print(f"{job['kind']}: {job['state']} {job['stage'] or ''}".rstrip())
                fraction = 1.0 if job["state"] == "succeeded" else (job["progress"] or {}).get("fraction", 0.0)
                bars.update(rows[job_id], completed=fraction, about=_about(job))
            if time.monotonic() - changed > _QUIET_SECONDS:
                raise _Broken("no job has moved for half an hour")
            time.sleep(0.4)
    return [jobs[job_id] for job_id in ids]


def _about(job: dict[str, Any]) -> str:
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


def _table(client: httpx.Client, done: Sequence[dict[str, Any]], console: Console) -> None:
    _type(console, f"\n$ curl $S/v1/jobs/{done[0]['id']}/report")
    table = Table(title="Held-out results", title_justify="left", title_style="bold", box=SIMPLE, show_edge=False)
    table.padding = (0, 1, 0, 0)  # it fits a terminal of 80 columns
    for column in ("job", "task", "method", "control", "Δ", "verdict", "file"):
        table.add_column(column, no_wrap=True)
    sentences = []
    for job in done:
        report = client.get(f"/v1/jobs/{job['id']}/report").json()
        sentences.append((job["kind"], report["sentence"]))
        files = {file["name"]: file["bytes"] for file in client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]}
        sizes = _size(files.get("model.keras"))
        if "teacher.keras" in files:
            sizes = f"{sizes.removesuffix(' kB')} of {_size(files['teacher.keras'])}"
        for name, task in report["verdict"]["tasks"].items():
            means = _mean(task["treated"]), _mean(task["control"]), _mean(task["delta"], signed=True)
            table.add_row(job["kind"] if sizes else "", name, *means, _verdict(task["decision"]), sizes)
            sizes = ""
        table.add_section()
    console.print(table)
    for kind, sentence in sentences:
        console.print(Text.assemble((kind, "bold"), f": {sentence}"), soft_wrap=not console.record)
    _type(console, f"\n$ curl -OJ $S/v1/jobs/{done[0]['id']}/artifacts.zip")
    held = client.get(f"/v1/jobs/{done[0]['id']}/artifacts.zip")
    console.print(f"  {held.status_code} {len(held.content):,} bytes: models, manifests, report, metrics and log")


def _predict(client: httpx.Client, job_id: str, console: Console) -> None:
    """One real picture, drawn, and the model's answer."""
    _type(console, "\n$ curl $S/v1/datasets/digits/preview?rows=1")
    row = client.get("/v1/datasets/digits/preview", params={"rows": 1}).json()["rows"][0]
    console.print(_drawn(row["input"], colours=console.color_system in ("256", "truecolor")))
    _type(console, f"$ curl --json '{{\"inputs\": [that picture]}}' $S/v1/models/job:{job_id}/predict")
    until = time.monotonic() + 60
    while True:  # the first prediction may have to wait for Keras
        answer = client.post(f"/v1/models/job:{job_id}/predict", json={"inputs": [row["input"]]})
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > until:
            break
        time.sleep(0.5)
    if answer.status_code != httpx.codes.OK:
        raise _Broken(f"predict answered {answer.status_code}: {answer.text}")
    prediction = answer.json()["predictions"][0]["digit"]
    console.print(
        f"  the model says {prediction['label']} ({prediction['probability']:.1%}); it was written as a {row['digit']}"
    )


def _drawn(picture: Any, colours: bool) -> Text:
    """A grey picture, two rows of pixels to a line of text: in half blocks, or in shades where there are no colours."""
    rows = [[int(pixel[0] if isinstance(pixel, list) else pixel) for pixel in line] for line in picture]
    drawn = Text()
    for upper, lower in zip(rows[::2], rows[1::2], strict=False):
        drawn.append("  ")
        for top, bottom in zip(upper, lower, strict=True):
            if colours:
                drawn.append("▀", f"rgb({top},{top},{top}) on rgb({bottom},{bottom},{bottom})")
            else:
                drawn.append(" ░▒▓█"[min(4, 5 * (top + bottom) // 512)] * 2)
        drawn.append("\n")
    drawn.rstrip()
    return drawn


def _type(console: Console, line: str) -> None:
    """A line as a person would type it; brackets in it are no markup."""
    console.print(Text(line, style="bold"), soft_wrap=True)


def _verdict(decision: str) -> Text:
    return Text(decision, style={"helped": "bold green", "hurt": "bold red"}.get(decision, ""))


def _without_download(svg: str) -> str:
    """rich's picture names a web font; ours needs no network."""
    return re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)


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
