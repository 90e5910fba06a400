"""Checkpoints: all that a fit needs to go on bit by bit, in one directory that is there whole or not at all.

`<stage>-<step>/` holds `arrays.npz`, `state.json` and `manifest.json` with the sha256 of both; it is written beside, fsynced and
renamed into place. The newest two are kept: a checkpoint that a crash or a bad disk has spoilt is passed over for the one before it. A
later attempt inherits only checkpoints that its worker recorded. While a worker may be deaf, an older one is kept as well, and the one
that will take its place: four at most.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app import durable

KEPT = 2
DEAF_SECONDS = (
    60.0  # two leases, as they are by default: a worker that could record nothing for so long has lost its job
)

_made: dict[Path, float] = {}
"""When this process saved each checkpoint, by the monotonic clock; inherited checkpoints are not in it and count as older."""


@dataclass
class Saved:
    """The state of a fit after `step` optimizer steps of its stage. `state` is JSON; `arrays` keep their order."""

    step: int
    arrays: list[np.ndarray]
    state: dict[str, Any]


def save(home: Path, stage: str, saved: Saved) -> Path:
    """Writes `saved` durably; removes the stage's older checkpoints that are no longer kept, and all beyond `saved`. Returns the directory.

    Raises:
        OSError: there is no room, say; earlier checkpoints are as they were.
    """
    home.mkdir(parents=True, exist_ok=True)
    final = home / f"{_plain(stage)}-{saved.step}"
    beside = home / f".{_plain(stage)}"
    _remove(beside)  # a killed attempt's
    stream = io.BytesIO()
    np.savez(stream, *saved.arrays)
    files = {"arrays.npz": stream.getvalue(), "state.json": json.dumps({"step": saved.step, **saved.state}).encode()}
    files["manifest.json"] = json.dumps(
        {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    ).encode()
    try:
        beside.mkdir()
        for name, data in files.items():
            (beside / name).write_bytes(data)
            durable.sync(beside / name)
        durable.sync(beside)
        _remove(final)  # spoilt, or of another fit: else this one would have gone on from it
        beside.rename(final)
    except OSError:
        _remove(beside)
        raise
    durable.sync(home)
    _made[final] = time.monotonic()
    steps = _of_stage(home, stage)
    # Checkpoints ahead of this one were passed over, else the fit would be further.
    kept = _kept([folder for step, folder in steps if step <= saved.step])
    for folder in (folder for _, folder in steps if folder not in kept):
        _remove(folder)
    return final


def whole(home: Path, stage: str) -> Iterator[Saved]:
    """The checkpoints of `stage` whose files are as they were saved, the newest first."""
    for _, folder in _of_stage(home, stage):
        saved = _read(folder)
        if saved is not None:
            yield saved


def begun(home: Path, stage: str) -> bool:
    """Whether the stage has any checkpoint, whole or not."""
    return bool(_of_stage(home, stage))


def forget(home: Path, stage: str) -> None:
    """Removes the checkpoints of a stage that is finished and whose model is kept."""
    for _, folder in _of_stage(home, stage):
        _remove(folder)


def _kept(folders: Sequence[Path]) -> list[Path]:
    """Of a stage's `folders`, newest first: the newest two, the newest old one, and the oldest young one, which will take its place."""
    young = sum(time.monotonic() - _made.get(folder, -math.inf) < DEAF_SECONDS for folder in folders)
    return [*folders[:KEPT], *folders[max(0, young - 1) : young + 1]]


def _read(folder: Path) -> Saved | None:
    try:
        sums = json.loads((folder / "manifest.json").read_bytes())
        files = {name: (folder / name).read_bytes() for name in ("arrays.npz", "state.json")}
        if any(hashlib.sha256(data).hexdigest() != sums.get(name) for name, data in files.items()):
            return None
        state = json.loads(files["state.json"])
        with np.load(io.BytesIO(files["arrays.npz"]), allow_pickle=False) as arrays:
            return Saved(state.pop("step"), [arrays[f"arr_{number}"] for number in range(len(arrays.files))], state)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _remove(folder: Path) -> None:
    _made.pop(folder, None)
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def _of_stage(home: Path, stage: str) -> list[tuple[int, Path]]:
    """(step, directory), newest first."""
    pattern = re.compile(re.escape(_plain(stage)) + r"-(\d+)")
    matches = [(pattern.fullmatch(path.name), path) for path in home.iterdir()] if home.is_dir() else []
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _plain(stage: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "-", stage)
