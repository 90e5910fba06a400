"""How fast models answer: `python -m benchmarks.serving [--rounds N] [--write PAGE.md]`.

A single row at a time, by one client and by eight at once, each of which asks again as soon as it has its answer; over the inference
program's own HTTP, on a socket of this machine. The rival is the same program as it was before: an eager call of Keras for each request,
one after the other. Both run at the same time and are asked in turns. The networks have untrained numbers. Told are medians of the
rounds; of ratios with quartiles: of the times of other work on a machine little is seen in them.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from app.spec import architectures
from app.spec.data import InputSchema
from app.spec.models import HeadSpec
from worker import inference, warm_models
from worker.warm_models import WarmModels

CASES = {
    "table of 13 numbers, `mlp`": ("mlp", InputSchema(kind="table", shape=[13])),
    "pictures of 28×28, `cnn`": ("cnn", InputSchema(kind="image", shape=[28, 28, 1], scale=255.0)),
}
CLIENTS = (1, 8)
ARMS = ("service", "eager")
SECONDS = 2.0
"""Of one measurement."""


class OneByOne(WarmModels):
    """Predictions as they were: an eager call for each request, under one lock."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[Any, Any] = {}

    def predict(self, path: Path, inputs: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        import keras

        with self._building:
            key, _ = warm_models._checked(path)
            if key not in self._kept:
                self._kept[key] = keras.saving.load_model(path, compile=False, safe_mode=True)
            answers = self._kept[key](inputs, training=False)
            found = {name: np.asarray(answer, np.float32) for name, answer in answers.items()}
            assert not warm_models.not_finite(found)
            return found


class Connection(http.client.HTTPConnection):
    """On a Unix socket. Lighter than httpx, so that less of what is measured is the clients."""

    def __init__(self, path: Path) -> None:
        super().__init__("inference", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Measured:
    """`median` and `most`: seconds that half of the answers and 95 % of them took at most."""

    rows_a_second: float
    median: float
    most: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=Path, metavar="PAGE.md")
    parser.add_argument("--rival", metavar="ADDRESS", help="only serve as before, at this address")
    asked = parser.parse_args()
    if asked.rival is not None:
        inference.serve(asked.rival, OneByOne())
        return
    lines = section(asked.rounds)
    print("\n".join(lines))
    if asked.write is not None:
        asked.write.write_text("\n".join([*lines, ""]), encoding="utf-8")


def section(rounds: int) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "## Predictions",
        "",
        " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        "",
        f"`python -m benchmarks.serving`, {rounds} rounds. Above 1 the service is faster.",
        "",
        "| network | clients | median | 95 % within | rows a second | median, eager = 1 | 95 %, eager = 1 | rows a second, eager = 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="bequest-serving-", dir="/tmp") as folder, ExitStack() as stack:
        paths = {name: kept(Path(folder), number, *CASES[name]) for number, name in enumerate(CASES)}
        sockets = {arm: stack.enter_context(program(Path(folder), arm)) for arm in ARMS}
        for name, path in paths.items():
            for clients in CLIENTS:
                found = measured(sockets, path, body(CASES[name][1]), clients, rounds)
                lines.append(f"| {name} | {clients} | {told(found)} |")
    return lines


def kept(folder: Path, number: int, architecture: str, shape: InputSchema) -> Path:
    from worker.training.data.scaling import Scaling
    from worker.training.kept import export
    from worker.training.networks import build
    from worker.training.networks.initial import initial
    from worker.training.networks.network import Network
    from worker.training.tasks.heads import Task

    task = Task("label", "multiclass", "label", 10, tuple(map(str, range(10))))
    scaling = Scaling((0.0,) * shape.shape[-1], (shape.scale,) * shape.shape[-1])
    chosen = architectures.resolve(architecture)
    network = Network(chosen, shape, {task.name: task}, {task.name: HeadSpec()}, scaling, {})
    network.weights = initial(build.keras_layers(network), 0)
    path = folder / "store" / "model" / f"{number}.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    export.write(network, path)
    return path


def body(shape: InputSchema) -> bytes:
    """A row."""
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).random((1, *shape.shape), np.float32))
    return file.getvalue()


@contextmanager
def program(folder: Path, arm: str) -> Iterator[Path]:
    """A program that answers, and its socket."""
    address = folder / f"{arm}.sock"
    as_before = ["benchmarks.serving", "--rival"]
    command = [
        sys.executable,
        "-m",
        *(as_before if arm == "eager" else ["worker.inference", "--bind"]),
        f"unix://{address}",
    ]
    environment = {**os.environ, "BEQUEST_DATA": str(folder), "BEQUEST_LOG_FORMAT": "json"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not address.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the program that answers as {arm} has not begun")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def measured(
    sockets: Mapping[str, Path], model: Path, row: bytes, clients: int, rounds: int
) -> dict[str, list[Measured]]:
    """By arm, of each round; the arms in turns."""
    for address in sockets.values():
        ask(0.5, address, model, row, [], threading.Barrier(1))  # it is loaded
    found: dict[str, list[Measured]] = {arm: [] for arm in sockets}
    for _ in range(rounds):
        for arm, address in sockets.items():
            found[arm].append(ask_for(SECONDS, address, model, row, clients))
    return found


def ask_for(seconds: float, address: Path, model: Path, row: bytes, clients: int) -> Measured:
    took, together = list[float](), threading.Barrier(clients + 1)
    threads = [
        threading.Thread(target=ask, args=(seconds, address, model, row, took, together)) for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    together.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    over = time.perf_counter() - begun
    return Measured(len(took) / over, statistics.median(took), statistics.quantiles(took, n=20)[-1])


def ask(seconds: float, address: Path, model: Path, row: bytes, took: list[float], together: threading.Barrier) -> None:
    """One client, which adds what each of its requests `took`."""
    connection = Connection(address)
    path = f"/predict?{urlencode({'model': str(model)})}"
    own = list[float]()
    connection.connect()
    together.wait()
    until = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        connection.request("POST", path, row)
        answer = connection.getresponse()
        content = answer.read()
        own.append(time.perf_counter() - begun)
        if answer.status != http.client.OK:
            raise RuntimeError(content.decode())
    took.extend(own)
    connection.close()


def told(found: Mapping[str, Sequence[Measured]]) -> str:
    mine, theirs = (found[arm] for arm in ARMS)
    cells = [
        f"{1000 * statistics.median(one.median for one in mine):.1f} ms",
        f"{1000 * statistics.median(one.most for one in mine):.1f} ms",
        f"{statistics.median(one.rows_a_second for one in mine):.0f}",
        ratios([other.median / one.median for one, other in zip(mine, theirs, strict=True)]),
        ratios([other.most / one.most for one, other in zip(mine, theirs, strict=True)]),
        ratios([one.rows_a_second / other.rows_a_second for one, other in zip(mine, theirs, strict=True)]),
    ]
    return " | ".join(cells)


def ratios(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"**{middle:.2f}×** ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
