"""Files that a crash, a power cut or a full disk leaves whole: the old one or the new one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write(path: Path) -> Iterator[Path]:
    """Gives the place to write to, beside `path` and with its suffix. When the block ends, that file is on the disk as `path`.

    No two writers share a place, so the last one to end has the name. The names of places begin with a dot.

    Raises:
        OSError: there is no room, say. The file at `path` is as it was, unless only the new file's name could not be
            synced; nothing half-written is left.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield beside
        sync(beside)
        beside.replace(path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """The content of a file, or the names in a folder, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
