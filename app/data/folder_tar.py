"""A folder as a tar: the same bytes for the same files, whenever and wherever it is made, so that it is the same data set."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO

from app.data.upload_limits import UploadLimits

BLOCK = tarfile.BLOCKSIZE
DEEPEST = 100
MOST_FILES = UploadLimits.files


class TooLarge(Exception):
    """The tar would be longer than it may."""


@dataclass(frozen=True)
class Packed:
    """What a tar holds, and how many links and other things that are no plain files were left out."""

    files: int
    bytes: int
    left_out: int


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int

    @property
    def room(self) -> int:
        """The bytes that it takes in the tar, at most."""
        return self.size + len(self.name) * 4 + 4 * BLOCK


def pack(folder: int, target: IO[bytes], *, most: int, progress: Callable[[int, int], None] | None = None) -> Packed:
    """Writes all files of a folder, hidden ones too, in the order of their names. Nothing of them is kept but their names and bytes.

    No link is followed. A file that grows meanwhile is cut to the length that it had.

    Args:
        folder: a descriptor.
        most: the longest that the tar may be, in bytes.
        progress: is told (done, total) bytes.

    Raises:
        TooLarge: before anything is written.
        OSError: a file or folder cannot be read, is nested deeper than `DEEPEST`, or became shorter meanwhile.
    """
    entries, left_out = _listed(folder)
    total = sum(entry.room for entry in entries)
    if total > most:
        raise TooLarge(f"{len(entries)} files of {total} bytes, at most {most} are taken")
    done = 0
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        for entry in entries:
            about = tarfile.TarInfo(entry.name)
            about.size = entry.size
            with opened(folder, entry.name) as source:
                tar.addfile(about, source)
            done += entry.room
            if progress is not None:
                progress(done, total)
    return Packed(len(entries), total, left_out)


def _listed(folder: int) -> tuple[list[_Entry], int]:
    """The plain files below a folder, by their names, and the number of other things."""
    entries, left_out = list[_Entry](), 0
    for path, folders, names, descriptor in os.fwalk(".", dir_fd=folder, follow_symlinks=False, onerror=_fail):
        above = "" if path == "." else path.removeprefix("./") + "/"
        if above.count("/") > DEEPEST:
            raise OSError(f"folders are nested deeper than {DEEPEST}")
        for name in [*names, *folders]:
            about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(about.st_mode):
                entries.append(_Entry(above + name, about.st_size))
            if len(entries) > MOST_FILES:
                raise TooLarge(f"more than {MOST_FILES} files")
            left_out += not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode))
    return sorted(entries, key=lambda entry: os.fsencode(entry.name)), left_out


def _fail(error: OSError) -> None:
    raise error


@contextmanager
def opened(folder: int, name: str) -> Iterator[BinaryIO]:
    """A plain file below a folder, for reading. Raises OSError where a link is on the way to it, or it is no plain file."""
    descriptor = open_beneath(folder, name)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no plain file any more")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def open_beneath(folder: int, name: str) -> int:
    """A descriptor of what lies at `name` below a folder, without following any link on the way. Raises OSError."""
    here = os.dup(folder)
    for part in name.split("/"):
        try:
            after = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = after
    return here
