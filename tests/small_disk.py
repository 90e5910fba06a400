"""A disk that can be filled without harm: a tmpfs, which only root may mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLOON = "balloon"


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A disk of that size at `folder`, which is made."""
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=711", "tmpfs", str(folder)]
    if subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is a tmpfs, which only root may mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, keep: int = 0) -> None:
    """Leaves `keep` bytes free."""
    free(disk)
    with (disk / BALLOON).open("wb", buffering=0) as balloon:
        try:
            while balloon.write(b"\0" * 4096):
                pass
        except OSError:
            pass
        balloon.truncate(max(0, balloon.tell() - keep))


def free(disk: Path) -> None:
    (disk / BALLOON).unlink(missing_ok=True)
