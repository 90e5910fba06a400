"""Files that a client may name: those in the folders that the operator has opened (BEQUEST_FILE_ROOTS), and no others."""

from __future__ import annotations

import hashlib
import os
import stat
from functools import lru_cache
from pathlib import Path

from app.settings import settings
from app.spec.lookup import Missing

LARGEST = 2**31


def find(name: str, sha256: str | None = None) -> tuple[Path, str]:
    """The file that `name` means, relative to one of the folders or absolute within one; and its sha256.

    Links that lead out of the folders lead nowhere. Whether a file is missing or elsewhere is not told.

    Raises:
        Missing: there is none, or it is not the one of `sha256`.
    """
    for root in _roots(name):
        try:
            home = root.resolve(strict=True)
            path = (home / name).resolve(strict=True)
            about = path.stat()
            if not path.is_relative_to(home) or not path.is_file() or about.st_size > LARGEST:
                continue
            digest = _sha256(path, about.st_mtime_ns, about.st_size)
        except (OSError, ValueError):
            continue
        if sha256 not in (None, digest):
            raise Missing(name, "the file is not the one that it was", "submit the job again, without `sha256`")
        return path, digest
    raise _missing(name)


def open_named(name: str) -> tuple[int, str]:
    """A descriptor of the file or folder that `name` means, as `find` says it, and its name there.

    The way from the open folder to it is gone without following any link, so that none can be put there in between.

    Raises:
        Missing: there is none, or it is neither a plain file nor a folder.
    """
    for root in _roots(name):
        try:
            home = root.resolve(strict=True)
            path = (home / name).resolve(strict=True)
            way = str(path.relative_to(home))  # a ValueError where it lies elsewhere
            folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                descriptor = open_beneath(folder, way)
            finally:
                os.close(folder)
        except (OSError, ValueError):
            continue
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return descriptor, path.name
        os.close(descriptor)
    raise _missing(name)


def open_beneath(folder: int, name: str) -> int:
    """A descriptor, for reading, of what lies at `name` below a folder; no link on the way is followed. Raises OSError."""
    here = os.dup(folder)
    for part in name.split("/"):
        try:
            after = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = after
    return here


def _roots(name: str) -> tuple[Path, ...]:
    roots = settings().file_roots
    if not roots:
        raise Missing(name, "no folder is open for files", "the operator names folders in BEQUEST_FILE_ROOTS")
    return roots


def _missing(name: str) -> Missing:
    return Missing(name, "there is no such file in the folders that are open", "BEQUEST_FILE_ROOTS names those folders")


@lru_cache(256)
def _sha256(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - a file that changed is read again
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
