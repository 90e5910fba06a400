"""The members of a zip or a tar. Nothing in it is believed, nothing is extracted: a name is a label, and bytes are read within limits."""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import Fault, Invalid

END_SIGNATURE, END_RECORD = b"PK\5\6", 22
ENTRY_SIGNATURE, SHORTEST_ENTRY = b"PK\1\2", 46
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,
    LookupError,  # of tarfile: a header that ends early
    RuntimeError,  # of zipfile: encrypted; of tarfile: headers within headers
    NotImplementedError,
    OverflowError,
    OSError,
)
_READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LINK, _DIRECTORY = 0o120000, 0o040000
_COPIED = MIB


class Unreadable(Exception):
    """A member whose bytes cannot be had. The message says why."""


@dataclass(frozen=True)
class Member:
    """A file in an archive. `refused`: why its bytes are not read, or None."""

    name: str
    size: int
    refused: str | None
    _content: Callable[[], bytes]

    def content(self) -> bytes:
        """Its bytes. Raises Unreadable."""
        if self.refused:
            raise Unreadable(self.refused)
        try:
            content = self._content()
        except MemoryError:
            raise
        except _DAMAGE:
            raise Unreadable("its bytes in the archive are damaged") from None
        if len(content) != self.size:
            raise Unreadable(f"{len(content)} bytes, but the archive says {self.size}")
        return content


@contextmanager
def members(file: IO[bytes], format: str, scratch: IO[bytes], limits: UploadLimits) -> Iterator[list[Member]]:
    """The files of an archive, in its order, directories left out. They can be read while the context lasts.

    Args:
        format: "zip" or "tar", which may be compressed by gzip.
        scratch: an empty file for a decompressed tar.

    Raises:
        Invalid: what is no such archive, or goes beyond a wall: members, decompressed bytes, their ratio to the bytes sent.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if format == "zip":
        _check_count(file, size, limits)
        with _opening():
            archive = zipfile.ZipFile(file)
        with archive:
            infos = archive.infolist()
            _check_sizes([info.file_size for info in infos], sum(info.compress_size for info in infos), size, limits)
            yield [_zip_member(archive, info, limits) for info in infos if not info.filename.endswith("/")]
        return
    plain = _decompressed(file, size, scratch, limits) if file.read(2) == b"\x1f\x8b" else file
    plain.seek(0)
    with _opening():
        tar = tarfile.TarFile(fileobj=plain)
    with tar:
        found = _tar_members(tar, limits)
        _check_sizes([member.size for member in found], 0, size, limits)
        yield found


@contextmanager
def _opening() -> Iterator[None]:
    """zipfile and tarfile answer hostile bytes with many an exception; all of them mean that the archive is damaged."""
    try:
        yield
    except (Invalid, MemoryError):
        raise
    except _DAMAGE:
        raise Invalid([Fault("/file", "the archive is damaged", "make it again with zip or tar")]) from None


def _tar_members(tar: tarfile.TarFile, limits: UploadLimits) -> list[Member]:
    found, before = list[Member](), -1
    with _opening():
        for info in tar:
            if info.size < 0 or info.offset_data <= before:  # it would lead back, and be read for ever
                raise tarfile.ReadError
            before = info.offset_data
            if not info.isdir():
                found.append(_tar_member(tar, info, limits))
            if len(found) > limits.files:
                raise Invalid([_too_many(f"more than {limits.files}", limits)])
    return found


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: UploadLimits) -> Member:
    refused = _refusal(info.file_size, limits)
    if info.external_attr >> 16 & 0o170000 == _LINK:
        refused = "a link"
    elif info.flag_bits & 1:
        refused = "encrypted"
    elif info.compress_type not in _READ_METHODS:
        refused = "compressed in a way that is not read; use deflate"

    def content() -> bytes:
        with archive.open(info) as stream:
            return stream.read(info.file_size + 1)

    name = info.filename if "/" in info.filename else info.filename.replace("\\", "/")  # as old Windows tools write it
    return Member(name, info.file_size, refused, content)


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, limits: UploadLimits) -> Member:
    refused = _refusal(info.size, limits)
    if not info.isreg():
        refused = "a link" if info.issym() or info.islnk() else "no plain file"
    elif info.sparse is not None:
        refused = "a sparse file"

    def content() -> bytes:
        stream = tar.extractfile(info)
        if stream is None:
            raise Unreadable("no plain file")
        with stream:
            return stream.read(info.size + 1)

    return Member(info.name, info.size, refused, content)


def _refusal(size: int, limits: UploadLimits) -> str | None:
    if size > limits.file_bytes:
        return f"{size} bytes, at most {limits.file_bytes} are read of one file"
    return None


def _check_count(file: IO[bytes], size: int, limits: UploadLimits) -> None:
    """Refuses too many members before zipfile lists them, which takes a second for each hundred thousand.

    The records at the end are not asked: they may say three, and there are two of them. An entry of a directory begins with its
    signature, wherever the directory is.
    """
    file.seek(max(0, size - END_RECORD - 65_535))
    tail = file.read()
    start = tail.rfind(END_SIGNATURE)
    if start < 0 or len(tail) - start < END_RECORD:
        raise Invalid(
            [Fault("/file", "no zip archive ends here: it was cut off, or is none", "send the whole file again")]
        )
    file.seek(0)
    entries, before = 0, b""
    while size >= limits.files * SHORTEST_ENTRY and (block := file.read(_COPIED)):
        entries += (before + block).count(ENTRY_SIGNATURE)
        before = block[1 - len(ENTRY_SIGNATURE) :]
    if entries > limits.files:
        raise Invalid([_too_many(str(entries), limits)])
    file.seek(0)


def _check_sizes(sizes: list[int], compressed: int, size: int, limits: UploadLimits) -> None:
    total = sum(sizes)
    faults = []
    if compressed > size:  # members that share their bytes: a bomb that each ratio alone would not show
        faults.append(Fault("/file", "the members take more bytes than the file has", "make the archive again"))
    if total > max(MIB, limits.ratio * size):
        message = f"compressed more than {limits.ratio} to 1, as no real data are"
        faults.append(Fault("/file", message, "make the archive without compression"))
    if total > limits.archive_bytes:
        faults.append(
            Fault("/file", f"the files take {total} bytes, at most {limits.archive_bytes} are read", "send fewer files")
        )
    if faults:
        raise Invalid(faults)


def _decompressed(file: IO[bytes], size: int, scratch: IO[bytes], limits: UploadLimits) -> IO[bytes]:
    """The tar in a tar.gz, in `scratch`."""
    most = min(limits.archive_bytes, max(MIB, limits.ratio * size))
    file.seek(0)
    done = 0
    with _opening():
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                while block := stream.read(_COPIED):
                    done += len(block)
                    if done > most:
                        message = f"it decompresses to more than {most} bytes"
                        raise Invalid([Fault("/file", message, "send fewer files, or a tar without compression")])
                    scratch.write(block)
        except gzip.BadGzipFile:
            raise Invalid([Fault("/file", "the gzip archive is damaged", "make it again")]) from None
    return scratch


def _too_many(count: str, limits: UploadLimits) -> Fault:
    return Fault("/file", f"{count} members, at most {limits.files} are read", "send fewer files, or larger ones")
