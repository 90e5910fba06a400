"""Teachers' outputs, cached: a teacher computes each row once, whatever the number of arms, attempts and jobs.

The key is the teacher's file (sha256) and the row's own bytes, so a cache may be useless but is never wrong. Outputs come from batches of
one shape, so that a row's outputs do not depend on the other new rows. Unreadable files of an earlier job are ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from app import durable
from app.data.source import Source, SourceRows, blocks
from app.data.table import HASH_BYTES
from worker.training.fitting import caching
from worker.training.process import device

if TYPE_CHECKING:
    from worker.training.kept.store import Model

MOST_BYTES = 2 << 30
"""Bound on all files together; the longest unused are removed first."""

MOST_FILE_BYTES = 256 << 20
"""Bound on one teacher's file; larger outputs stay in memory for the job alone."""

Ask = Callable[[Any, Source, Sequence[str]], dict[str, np.ndarray]]


@dataclass
class CachedOutputs:
    """`places`: {a row's hash: its place}; `values`: the outputs {name: (n, …)} in the order of places."""

    places: dict[bytes, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.values.values()) + HASH_BYTES * len(self.places)


class TeacherCache:
    """`ask`: a network's outputs for raw inputs, as `Run.logits`. `folder`: for files that outlive the job (None: there are none)."""

    def __init__(self, ask: Ask, folder: Path | None = None):
        self._ask, self._folder = ask, folder
        self._cached: dict[str, CachedOutputs] = {}

    def __call__(self, model: Model, inputs: Source, layers: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """{task: logits (n, units)} and {feature/LAYER: …} of raw `inputs`."""
        key = _key(model, inputs, layers)
        if key not in self._cached:
            self._cached[key] = self._read(key)
        cached, hashes = self._cached[key], _hashes(inputs)
        first = {digest: row for row, digest in reversed([*enumerate(hashes)])}
        new = sorted(row for digest, row in first.items() if digest not in cached.places)
        if new or not cached.values:
            outputs = self._whole(model, inputs, np.array(new, np.int64), layers)
            values = cached.values or {name: array[:0] for name, array in outputs.items()}
            cached.values = {name: np.concatenate([values[name], outputs[name]]) for name in outputs}
            cached.places |= {hashes[row]: len(cached.places) + number for number, row in enumerate(new)}
            self._write(key, cached)
        places = np.array([cached.places[digest] for digest in hashes], np.int64)
        return {name: array[places] for name, array in cached.values.items()}

    def _whole(self, model: Model, inputs: Source, rows: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Outputs of `rows`, computed in whole chunks alone: a smaller batch uses other kernels, whose last bits differ."""
        n = len(rows)
        if n:
            asked: Source = SourceRows(inputs, np.concatenate([rows, np.repeat(rows[-1:], -n % caching.CHUNK)]))
        else:
            asked = np.zeros((caching.CHUNK, *inputs.shape[1:]), inputs.dtype)
        return {name: np.asarray(array)[:n] for name, array in self._ask(model.network, asked, layers).items()}

    def _path(self, key: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{key}.npz"

    def _read(self, key: str) -> CachedOutputs:
        path = self._path(key)
        try:
            if path is None or not path.is_file():
                return CachedOutputs()
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                hashes = stored["hashes"]
                values = {name.removeprefix("value/"): stored[name] for name in stored.files if name != "hashes"}
            os.utime(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return CachedOutputs()
        if any(len(array) != len(hashes) for array in values.values()):
            return CachedOutputs()
        return CachedOutputs({row.tobytes(): number for number, row in enumerate(hashes)}, values)

    def _write(self, key: str, cached: CachedOutputs) -> None:
        """A cache that cannot be written is no reason to fail."""
        path = self._path(key)
        if path is None or not cached.places or cached.bytes > MOST_FILE_BYTES:
            return
        hashes = np.frombuffer(b"".join(cached.places), np.uint8).reshape(-1, HASH_BYTES)
        arrays: dict[str, Any] = {f"value/{name}": array for name, array in cached.values.items()}
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with durable.write(path) as beside:
                np.savez(beside, hashes=hashes, **arrays)
            prune(path.parent)


def _key(model: Model, inputs: Source, layers: Sequence[str]) -> str:
    """A hash of all that outputs depend on, besides a row's numbers."""
    network = model.network
    about = [
        model.manifest.sha256,
        network.scaling.mean,
        network.scaling.std,
        list(inputs.shape[1:]),
        str(inputs.dtype),
        sorted(set(layers)),
        [keras.__version__, keras.backend.backend(), device.name()],
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:40]


def _hashes(inputs: Source) -> list[bytes]:
    return [
        hashlib.blake2b(row.tobytes(), digest_size=HASH_BYTES).digest()
        for block in blocks(inputs, np.arange(len(inputs)))
        for row in block
    ]


def prune(folder: Path) -> None:
    """Removes the files that are longest unused, until the rest is within `MOST_BYTES`."""
    paths = [path for path in folder.iterdir() if path.suffix in (".npy", ".npz")]
    files = sorted(((path.stat().st_mtime, path.stat().st_size, path) for path in paths), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)
