"""Files that a spec may name: those in the folders that the operator has opened (BEQUEST_FILE_ROOTS), and no others."""

from __future__ import annotations

import hashlib
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
    roots = settings().file_roots
    if not roots:
        raise Missing(name, "no folder is open for files", "the operator names folders in BEQUEST_FILE_ROOTS")
    for root in roots:
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
    raise Missing(name, "there is no such file in the folders that are open", "BEQUEST_FILE_ROOTS names those folders")


@lru_cache(256)
def _sha256(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - a file that changed is read again
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
