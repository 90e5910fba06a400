"""A folder as a tar: the same bytes for the same files, whenever and wherever it is made, so that it is the same data set."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO

from app.data.upload_limits import UploadLimits
from app.spec import files

DEEPEST = 100
MOST_FILES = UploadLimits.files


class TooLarge(Exception):
    """The tar would be longer than it may."""


@dataclass(frozen=True)
class _Entry:
    name: str
    type: bytes
    size: int

    @property
    def room(self) -> int:
        """The bytes that it takes in the tar, at most."""
        return self.size + len(self.name) * 4 + 4 * tarfile.BLOCKSIZE


def pack(
    folder: int,
    target: IO[bytes],
    *,
    most: int,
    only: Callable[[Collection[str]], Collection[str]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes all files of a folder, hidden ones too, in the order of their names. Nothing of them is kept but their names and bytes.

    No link is followed: a link stands in the tar as one that leads nowhere, and whatever else is no plain file as a pipe, so that the
    reader counts them. A file that grows meanwhile is cut to the length that it had.

    Args:
        folder: a descriptor.
        most: the longest that the tar may be, in bytes.
        only: is told the names, and says which are wanted.
        progress: is told (done, total) bytes.

    Returns:
        How many files and links there are.

    Raises:
        TooLarge: before anything is written.
        OSError: a file or folder cannot be read, is nested deeper than `DEEPEST`, or became shorter meanwhile.
    """
    entries = _listed(folder)
    if only is not None:
        wanted = set(only([entry.name for entry in entries]))
        entries = [entry for entry in entries if entry.name in wanted]
    total, done = sum(entry.room for entry in entries), 0
    if total > most:
        raise TooLarge(f"{len(entries)} files take {total} bytes, at most {most} are taken")
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        for entry in entries:
            about = tarfile.TarInfo(entry.name)
            about.type, about.size = entry.type, entry.size
            if entry.type == tarfile.REGTYPE:
                with _opened(folder, entry.name) as source:
                    tar.addfile(about, source)
            else:
                tar.addfile(about)
            done += entry.room
            if progress is not None:
                progress(done, total)
    return len(entries)


def _listed(folder: int) -> list[_Entry]:
    """All that lies below a folder but the folders, in the order of the names' bytes."""
    entries = list[_Entry]()
    for path, folders, names, descriptor in os.fwalk(".", dir_fd=folder, follow_symlinks=False, onerror=_fail):
        above = "" if path == "." else path.removeprefix("./") + "/"
        if above.count("/") > DEEPEST:
            raise OSError(f"folders are nested deeper than {DEEPEST}")
        for name in [*names, *folders]:
            about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(about.st_mode):
                entries.append(_Entry(above + name, tarfile.REGTYPE, about.st_size))
            elif not stat.S_ISDIR(about.st_mode):
                kind = tarfile.SYMTYPE if stat.S_ISLNK(about.st_mode) else tarfile.FIFOTYPE
                entries.append(_Entry(above + name, kind, 0))
        if len(entries) > MOST_FILES:
            raise TooLarge(f"there are more than {MOST_FILES} files")
    return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def _fail(error: OSError) -> None:
    raise error


@contextmanager
def _opened(folder: int, name: str) -> Iterator[BinaryIO]:
    """A plain file below a folder, for reading. Raises OSError where a link is on the way to it, or it is no plain file."""
    descriptor = files.open_beneath(folder, name)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no plain file any more")
    with os.fdopen(descriptor, "rb") as file:
        yield file
