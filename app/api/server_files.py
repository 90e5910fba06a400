"""Data sets that lie on the service's own machine: a `file://` URI names a file, or a folder, which becomes a tar."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection
from typing import IO
from urllib.parse import unquote_to_bytes, urlsplit

from app.data import disk, folder_tar
from app.settings import settings
from app.spec import files
from app.spec.faults import Fault, Invalid
from app.spec.lookup import Missing

_BLOCK = 2**20


def copy(
    uri: str, target: IO[bytes], only: Callable[[Collection[str]], Collection[str]] | None = None
) -> tuple[str, str | None]:
    """Writes the file, or a tar of the folder, that a URI names. Only what lies below one of BEQUEST_FILE_ROOTS is read, and no link out.

    Args:
        only: is told the names of a folder's files, and says which are wanted; all of them when left out.

    Returns:
        Its name, and the format of a folder's tar; None: the bytes will show it.

    Raises:
        Invalid: it names nothing that may be read, or too much; pointer /uri.
        OSError: the disk is full.
    """
    try:
        descriptor, name = files.open_named(_path(uri))
    except Missing as missing:
        raise Invalid([Fault("/uri", missing.message, missing.hint, "not_found")]) from None
    try:
        return name, _copy(descriptor, target, only)
    except folder_tar.TooLarge as error:
        raise Invalid([_too_large(str(error))]) from None
    except OSError as error:
        if disk.is_full(error):
            raise
        message = f"it cannot be read: {error.strerror or error}"
        raise Invalid(
            [Fault("/uri", message, "let the service's user read it, and change nothing meanwhile")]
        ) from None
    finally:
        os.close(descriptor)


def _copy(descriptor: int, target: IO[bytes], only: Callable[[Collection[str]], Collection[str]] | None) -> str | None:
    most, about = settings().max_upload_bytes, os.fstat(descriptor)
    if stat.S_ISDIR(about.st_mode):
        folder_tar.pack(descriptor, target, most=most, only=only)
        return "tar"
    if about.st_size > most:
        raise Invalid([_too_large(f"it takes {about.st_size} bytes, at most {most} are taken")])
    with os.fdopen(os.dup(descriptor), "rb") as source:
        left = about.st_size  # and no more, should it grow
        while left and (block := source.read(min(left, _BLOCK))):
            target.write(block)
            left -= len(block)
    if left:
        raise OSError("it became shorter meanwhile")
    return None


def _path(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        path = os.fsdecode(unquote_to_bytes(parts.path))
    except ValueError:
        parts, path = urlsplit(""), ""
    if (
        parts.scheme != "file"
        or parts.netloc not in ("", "localhost")
        or not path.startswith("/")
        or parts.query
        or parts.fragment
    ):
        hint = "as in file:///data/photos; write ? # and % in names as %3F %23 and %25"
        raise Invalid([Fault("/uri", "expected file:// and an absolute path on the service's machine", hint, "uri")])
    return path


def _too_large(message: str) -> Fault:
    return Fault("/uri", message, "name fewer files; the operator sets BEQUEST_MAX_UPLOAD_BYTES", "too_large")
