"""A disk that can be filled without harm: a tmpfs, which only root may mount."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLOON, CROWD = "balloon", "crowd"
MOST_FILES = 400


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A disk of that size at `folder`, which is made."""
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,nr_inodes={MOST_FILES},mode=711", "tmpfs", str(folder)]
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


def fill_with_files(disk: Path) -> None:
    """Leaves room for no other file."""
    (disk / CROWD).mkdir()
    try:
        for number in range(MOST_FILES):
            (disk / CROWD / str(number)).touch()
    except OSError:
        pass


def free(disk: Path) -> None:
    shutil.rmtree(disk / CROWD, ignore_errors=True)
    (disk / BALLOON).unlink(missing_ok=True)
