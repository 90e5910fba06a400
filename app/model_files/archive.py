"""The zip that a `.keras` file is. Nothing in it is believed: its members are listed and judged before the first is read."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from app.spec.faults import Fault, Invalid

CONFIG, METADATA, WEIGHTS, ASSETS = "config.json", "metadata.json", "model.weights.h5", "assets/"
KNOWN = {CONFIG, METADATA, WEIGHTS, "golden.npz", "tokenizer.json"}
"""Members of a `.keras`, with those that this service adds to its own."""

GRAPH, ARRAYS, VOCABULARY = "graph.json", "arrays.npz", "vocabulary.txt"
EXCHANGE = {GRAPH, ARRAYS, VOCABULARY}
"""Members of the other form, see `exchange`."""

FOLDER = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
"""Files of arrays, beside one of which `CONFIG` is that of a model's folder of another library: `app.pretrained.hugging_face` reads it."""

MOST_MEMBERS = 4096
RATIO = 200
LARGEST_ASSET = 4 * 2**20
CHUNK = 2**20
AGAIN = "save the model again with model.save('NAME.keras') of Keras 3"
_ENCRYPTED = 0x1
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """The members of a `.keras` file."""

    def __init__(self, file: zipfile.ZipFile, most_bytes: int):
        self._file = file
        self._most = most_bytes
        self._members = {info.filename: info for info in file.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str, most: int) -> bytes:
        """A member's bytes. Raises Invalid: more than `most`, or damaged."""
        target = io.BytesIO()
        self.copy(name, target, most)
        return target.getvalue()

    def copy(self, name: str, target: IO[bytes], most: int | None = None) -> None:
        """Writes a member's bytes to `target`, never more than the member's entry says. Raises Invalid as `read`."""
        info = self._members[name]
        if info.file_size > (self._most if most is None else most):
            raise Invalid([Fault("/" + name, "longer than it may be", "send a smaller model", "too_large")])
        left = info.file_size
        with _readable(), self._file.open(info) as source:
            while chunk := source.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise zipfile.BadZipFile
                target.write(chunk)
        if left:
            raise Invalid([Fault("/" + name, "shorter than its entry says", AGAIN, "unreadable")])


def is_folder(file: IO[bytes]) -> bool:
    """Whether it is a zip of a model's folder, or a tar, which no `.keras` file is. Raises Invalid: a damaged zip."""
    start = file.read(512)
    file.seek(0)
    if start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar" or start == bytes(512):  # an empty tar
        return True
    if not start.startswith(b"PK\3\4"):
        return False
    with _readable(), zipfile.ZipFile(file) as archive:
        inside = above(archive.namelist())
    file.seek(0)
    return inside is not None


def above(names: Iterable[str]) -> str | None:
    """Where in an archive a model's folder is, the outermost: `bert/`; empty where its members are those of the folder."""
    known = set(names)
    for name in sorted((name for name in known if name.endswith(CONFIG)), key=len):
        folder = name.removesuffix(CONFIG)
        if (not folder or folder.endswith("/")) and any(folder + beside in known for beside in FOLDER):
            return folder
    return None


@contextmanager
def opened(file: IO[bytes], most_bytes: int) -> Iterator[Archive]:
    """The archive, once all its members are known to be what a `.keras` may hold.

    Args:
        most_bytes: of one member, unpacked.

    Raises:
        Invalid: no zip, damaged, or members that do not belong into a `.keras`: all of them.
    """
    start = file.read(8)
    file.seek(0)
    if not start.startswith(b"PK\3\4"):
        raise Invalid([_no_zip(start)])
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with _readable():
        archive = zipfile.ZipFile(file)
    with archive:
        infos = archive.infolist()
        if len(infos) > MOST_MEMBERS:
            raise Invalid([Fault("", f"more than {MOST_MEMBERS} members", AGAIN, "too_large")])
        faults = [fault for info in infos for fault in _faults(info)] + _whole(infos, size, archive.start_dir)
        if faults:
            raise Invalid(faults)
        yield Archive(archive, most_bytes)


def _no_zip(start: bytes) -> Fault:
    what = "this is no .keras file"
    if start.startswith(b"\x89HDF"):
        what = "this is an HDF5 file: a model as Keras 2 saved it, or weights alone"
        hint = "open a model in Keras 3 and save it as .keras; send weights alone as weights of a named architecture"
    elif start.startswith((b"\x80", b"PK\5\6")):
        what, hint = "this is a pickle, or an empty archive", AGAIN
    else:
        hint = AGAIN
    return Fault("", what, hint, "unsupported_format")


def _faults(info: zipfile.ZipInfo) -> Iterator[Fault]:
    name = info.filename
    asset = name.startswith(ASSETS) and _is_plain(name)
    if name not in KNOWN | EXCHANGE and not asset:
        yield Fault("", "a member that does not belong into a .keras file", AGAIN, "unknown_member")
    if info.orig_filename != name or stat.S_ISLNK(info.external_attr >> 16):
        yield Fault("", "a member whose name is not what it seems", AGAIN, "unknown_member")
    if info.flag_bits & _ENCRYPTED:
        yield Fault("", "a member is encrypted", "send the file as Keras wrote it", "unreadable")
    if info.compress_type not in _PACKINGS:
        yield Fault("", "a member is packed in a way that is not read", "send the file as Keras wrote it", "unreadable")
    if info.file_size > 2**20 and info.file_size > RATIO * max(1, info.compress_size):
        yield Fault("", f"a member unpacks to more than {RATIO} times its size", AGAIN, "too_large")


def _is_plain(name: str) -> bool:
    parts = name.rstrip("/").split("/")
    return len(name) <= 1024 and "\\" not in name and "\0" not in name and not {"", ".", ".."} & set(parts)


def _whole(infos: list[zipfile.ZipInfo], size: int, directory: int) -> list[Fault]:
    """That each member is there once, that they fill the file from its first byte, one after another, and that nothing follows."""
    faults = []
    if len({info.filename for info in infos}) < len(infos):
        faults.append(Fault("", "two members have one name", AGAIN, "unreadable"))
    starts = sorted((info.header_offset, info.compress_size) for info in infos)
    ends = [start + packed for start, packed in starts]
    overlap = any(end > start for end, (start, _) in zip(ends, starts[1:], strict=False))
    if not starts or starts[0][0] != 0 or overlap or ends[-1] > directory or directory > size:
        faults.append(Fault("", "not one zip archive from its first byte to its last", AGAIN, "unreadable"))
    names = {info.filename for info in infos}
    if names & EXCHANGE and names - EXCHANGE:
        faults.append(Fault("", f"{GRAPH} beside members of a .keras file", "send one or the other", "unknown_member"))
    missing = [name for name in ((GRAPH, ARRAYS) if names & EXCHANGE else (CONFIG, WEIGHTS)) if name not in names]
    faults += [Fault("", f"there is no {name}", AGAIN, "missing") for name in missing]
    return faults


@contextmanager
def _readable() -> Iterator[None]:
    """zipfile answers hostile bytes with many an exception; all of them mean that the archive is damaged."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        ValueError,
        RuntimeError,
        OverflowError,
        NotImplementedError,
        OSError,
    ):
        raise Invalid([Fault("", "the archive is damaged", AGAIN, "unreadable")]) from None
