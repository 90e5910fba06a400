"""How much memory a trainer fills with a data set in a file, in a memory map, and in an array: the same job in a process each.

    python -m benchmarks.memory [--rows 40000] [--side 96]

The job fine-tunes a small convolutional net on pictures of noise, and is watched, scored and reported. Printed is the most that was
resident (VmHWM), and what that is above the same job on a tenth of the rows in an array.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from app.data import prepared
from app.data.table import HASH_BYTES, Table, describe
from app.spec import base
from app.spec.data import InputSchema, Schema
from app.spec.faults import validate
from app.spec.registry import modules

REF = "ds_noise"
WAYS = ("file", "map", "array")


class One:
    """The data set of this benchmark alone."""

    def __init__(self, schema: Schema):
        self._schema = schema

    def schema(self, ref: str) -> Schema:
        assert ref == REF
        return self._schema

    def manifest(self, ref: str) -> Any:
        raise NotImplementedError


class Silent:
    def send(self, report: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--child", nargs=3, metavar=("FILE", "OUT", "WAY"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(train(Path(asked.child[0]), Path(asked.child[1]), asked.child[2]))
        return
    with tempfile.TemporaryDirectory(prefix="bequest-memory-") as home:
        small, _ = run(Path(home), max(100, asked.rows // 10), asked.side, "array")
        size = asked.rows * asked.side**2 / 2**20
        print(
            f"{asked.rows} pictures of {asked.side}×{asked.side}, {size:.0f} MiB; the process without them about {small:.0f}"
        )
        for way in WAYS:
            most, seconds = run(Path(home), asked.rows, asked.side, way)
            print(f"{way:>6}: {most:6.0f} MiB at most, {most - small:+6.0f}; {seconds:.0f} s")


def run(home: Path, rows: int, side: int, way: str) -> tuple[float, float]:
    """(MiB at most, seconds) of a process of its own."""
    path = home / f"{rows}.npz"
    if not path.exists():
        write(path, rows, side)
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(path), str(home / f"{rows}-{way}"), way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]), time.monotonic() - began


def write(path: Path, rows: int, side: int) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 10, rows).astype(np.int32)
    pictures = rng.integers(0, 256, (rows, side, side, 1), np.uint8)
    hashes = rng.integers(0, 256, (rows, HASH_BYTES), np.uint8)  # no two rows are alike
    column = describe("y", classes, [str(number) for number in range(10)])
    shape = InputSchema(kind="image", shape=[side, side, 1], scale=255.0)
    schema = Schema(rows=rows, input=shape, columns={"y": column}, target="y")
    prepared.write(Table(pictures, {"y": classes}, hashes, schema), path)


def assignment(path: Path) -> dict[str, Any]:
    method: Any = modules("methods")["transfer"]
    network = {"arch": "cnn-small"}
    body = {
        "kind": "transfer", "dataset": REF, "architecture": network, "training": {"steps": 40},
        "source": {"train": {"dataset": REF, "architecture": network, "training": {"steps": 40}}},
    }  # fmt: skip
    spec = method.resolve(validate(method.Spec, body), One(prepared.head(path, 1).schema))
    entries = {REF: {"path": str(path), "sha256": None}}
    words = {"id": "job_memory", "attempt": 1, "kind": "transfer", "spec": base.plain(spec)}
    made: dict[str, Any] = json.loads(json.dumps({**words, "datasets": entries, "models": {}, "kept": {}}))
    return made


def train(path: Path, out: Path, way: str) -> float:
    """MiB at most of this process, after the job."""
    from worker.training import trainer
    from worker.training.process import device

    read = prepared.read

    def read_as(file: Path) -> Table:
        table = read(file)
        source: Any = table.inputs
        if way == "array":
            source = source[np.arange(len(table))]
        if way == "map":
            source = np.memmap(file, source.dtype, "r", source._offset, source.shape)
        return Table(source, table.columns, table.hashes, table.schema)

    prepared.read = read_as
    device.prepare()
    out.mkdir()
    ended = trainer.run(assignment(path), out, Silent(), threading.Event())  # type: ignore[arg-type]
    assert ended == 0, ended
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
