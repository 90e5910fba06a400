"""Ways in which a checkpoint is spoilt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


SPOIL: dict[str, Callable[[Path], Any]] = {
    "cut": lambda folder: cut(folder / "arrays.npz"),
    "flipped bit": lambda folder: flip(folder / "arrays.npz"),
    "flipped bit of the state": lambda folder: flip(folder / "state.json"),
    "flipped bit of the sums": lambda folder: flip(folder / "manifest.json"),
    "empty": lambda folder: (folder / "arrays.npz").write_bytes(b""),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a manifest of nothing": lambda folder: (folder / "manifest.json").write_text("[]"),
    "nothing in it": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}
