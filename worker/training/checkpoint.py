"""Checkpoints: everything a fit needs to go on bit by bit, in one directory that is there whole or not at all.

`<stage>-<step>/` holds `arrays.npz`, `state.json` and `manifest.json` with the sha256 of both; it is written beside, fsynced and
renamed into place. Two are kept: one that a crash or a bad disk has spoilt is passed over for the one before it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.training import durable

KEPT = 2


@dataclass
class Saved:
    """The state of a fit after `step` optimizer steps of its stage. `state` is JSON; `arrays` in the order they were given."""

    step: int
    arrays: list[np.ndarray]
    state: dict[str, Any]


def save(home: Path, stage: str, saved: Saved) -> Path:
    """Writes `saved` durably and forgets all but the newest two of this stage up to it. Returns the directory.

    Raises:
        OSError: there is no room, say. Those that were there before are as they were.
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
            durable.write(beside / name, data)
        durable.sync(beside)
        _remove(final)  # spoilt, or of another fit: else this one would have gone on from it
        beside.rename(final)
    except OSError:
        _remove(beside)
        raise
    durable.sync(home)
    steps = _of_stage(home, stage)
    ahead = [folder for step, folder in steps if step > saved.step]  # passed over, else this fit would be further
    for old in [*ahead, *(folder for _, folder in steps[len(ahead) + KEPT :])]:
        _remove(old)
    return final


def whole(home: Path, stage: str) -> Iterator[Saved]:
    """The checkpoints of `stage` that are what was saved, the newest first."""
    for _, folder in _of_stage(home, stage):
        saved = _read(folder)
        if saved is not None:
            yield saved


def forget(home: Path, stage: str) -> None:
    """The stage is finished and its model kept."""
    for _, folder in _of_stage(home, stage):
        _remove(folder)


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
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def _of_stage(home: Path, stage: str) -> list[tuple[int, Path]]:
    """(step, directory), newest first."""
    pattern = re.compile(re.escape(_plain(stage)) + r"-(\d+)")
    found = [(pattern.fullmatch(path.name), path) for path in home.iterdir()] if home.is_dir() else []
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _plain(stage: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "-", stage)
