"""How much memory a trainer fills with a data set in a file, in a memory map, and in an array: the same job in a process each.

    python -m benchmarks.memory [--rows 40000] [--side 96] [--channels 1] [--features 0] [--ways file map array]

The job fine-tunes a small convolutional net on pictures of noise, or with `--features` a small dense one on rows of so many numbers, and
is watched, scored and reported. Printed is the most memory of its own, and what that is above the same job on a hundredth of the rows in an
array.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from app.data import prepared
from app.data.inputs import stored_type
from app.data.table import HASH_BYTES, Table, describe
from app.spec import base
from app.spec.architectures import Architecture
from app.spec.data import Feature, InputSchema, Schema
from app.spec.faults import validate
from app.spec.registry import modules
from app.spec.trace import Trace

REF = "ds_noise"
WAYS = ("file", "map", "array")
BLOCK = 1024


class One:
    """The data set of this benchmark alone."""

    def __init__(self, schema: Schema):
        self._schema = schema

    def schema(self, ref: str) -> Schema:
        assert ref == REF
        return self._schema

    def manifest(self, ref: str) -> Any:
        raise NotImplementedError

    def trace(self, architecture: Architecture, shape: Sequence[int]) -> Trace:
        from worker.training.networks import trunk

        return trunk.trace(architecture, shape)


class Silent:
    def send(self, report: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--features", type=int, default=0, help="of a table; 0: pictures")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--child", nargs=3, metavar=("FILE", "OUT", "WAY"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(train(Path(asked.child[0]), Path(asked.child[1]), asked.child[2]))
        return
    with tempfile.TemporaryDirectory(prefix="bequest-memory-") as home:
        shape = table(asked.features) if asked.features else pictures(asked.side, asked.channels)
        small, _ = run(Path(home), max(100, asked.rows // 100), shape, "array")
        size = asked.rows * int(np.prod(shape.shape)) * stored_type(shape).itemsize / 2**20
        print(
            f"{asked.rows} rows of {'×'.join(map(str, shape.shape))}, {size:.0f} MiB; "
            f"the process with a hundredth of them {small:.0f}"
        )
        for way in asked.ways:
            most, seconds = run(Path(home), asked.rows, shape, way)
            print(f"{way:>6}: {most:6.0f} MiB at most, {most - small:+6.0f}; {seconds:.0f} s")


def pictures(side: int, channels: int) -> InputSchema:
    return InputSchema(kind="image", shape=[side, side, channels], scale=255.0)


def table(features: int) -> InputSchema:
    named = [Feature(column=f"x{number}") for number in range(features)]
    return InputSchema(kind="table", shape=[features], features=named)


def run(home: Path, rows: int, shape: InputSchema, way: str) -> tuple[float, float]:
    """(MiB at most, seconds) of a process of its own."""
    path = home / f"{rows}.npz"
    if not path.exists():
        write(path, rows, shape)
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(path), str(home / f"{rows}-{way}"), way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]), time.monotonic() - began


def write(path: Path, rows: int, shape: InputSchema) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 10, rows).astype(np.int32)
    hashes = rng.integers(0, 256, (rows, HASH_BYTES), np.uint8)  # no two rows are alike
    column = describe("y", classes, [str(number) for number in range(10)])
    kind = stored_type(shape)
    schema = Schema(rows=rows, input=shape, columns={"y": column}, target="y")
    with path.open("wb") as file, prepared.Writer(file) as out:
        with out.rows(shape.shape, kind) as append:
            for start in range(0, rows, BLOCK):
                append(rng.integers(0, 256, (min(BLOCK, rows - start), *shape.shape), np.uint8).astype(kind))
        out.finish({"y": classes}, hashes, schema)


def assignment(path: Path) -> dict[str, Any]:
    method: Any = modules("methods")["transfer"]
    schema = prepared.head(path, 1).schema
    network = {"arch": "mlp" if schema.input.features else "cnn-small"}
    body = {
        "kind": "transfer", "dataset": REF, "architecture": network, "training": {"steps": 40},
        "source": {"train": {"dataset": REF, "architecture": network, "training": {"steps": 40}}},
    }  # fmt: skip
    spec = method.resolve(validate(method.Spec, body), One(schema))
    entries = {REF: {"path": str(path), "sha256": None}}
    words = {"id": "job_memory", "attempt": 1, "kind": "transfer", "spec": base.plain(spec)}
    made: dict[str, Any] = json.loads(json.dumps({**words, "datasets": entries, "models": {}, "kept": {}}))
    return made


def train(path: Path, out: Path, way: str) -> float:
    """MiB at most of this process's own while it did the job, as the worker counts them: without pages of files."""
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
    most, over = [0], threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not over.wait(0.02):
            info = process.memory_info()
            most[0] = max(most[0], info.rss - info.shared)

    watching = threading.Thread(target=watch)
    watching.start()
    ended = trainer.run(assignment(path), out, Silent(), threading.Event())  # type: ignore[arg-type]
    over.set()
    watching.join()
    assert ended == 0, ended
    return most[0] / 2**20


if __name__ == "__main__":
    main()
