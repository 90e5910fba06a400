"""Files that a crash, a power cut or a full disk leaves whole: the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """The file at `path` holds `data`, on the disk as well; only `sync` of its folder makes the name survive a power cut.

    Raises:
        OSError: there is no room, say; what was there before is as it was, and nothing half-written is left.
    """
    beside = path.with_name(f".{path.name}")
    try:
        write(beside, data)
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """The names in a folder are on the disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
