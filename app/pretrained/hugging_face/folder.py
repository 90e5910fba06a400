"""The parts of a model's folder by name, out of a folder, a zip or a tar of it. What else lies there is never opened."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.model_files import json_text
from app.model_files.archive import CONFIG, FOLDER, above
from app.spec.faults import Fault, Invalid

ARRAYS, TORCH, SHARDED = FOLDER
MODULES = "modules.json"
PARTS = frozenset({
    *(CONFIG, ARRAYS, TORCH, SHARDED, "README.md", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json", "special_tokens_map.json"),
    *(MODULES, "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
})  # fmt: skip
LARGEST, LARGEST_TEXT = 2**31, 2**24
MOST_MEMBERS = 10_000
AGAIN = "send config.json, model.safetensors and what lies beside them, as save_pretrained writes it"
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError),
    *(ValueError, RuntimeError, KeyError, OverflowError),
)


@dataclass(frozen=True)
class Folder:
    """`open`: a part of `names`, for reading."""

    names: frozenset[str]
    open: Callable[[str], IO[bytes]]

    def text(self, name: str) -> str:
        """A part as text. Raises Invalid: it is too long, damaged, or none."""
        try:
            with self.open(name) as file:
                content = file.read(LARGEST_TEXT + 1)
            if len(content) > LARGEST_TEXT:
                raise Invalid([Fault(f"/{name}", "longer than it may be", AGAIN, "too_large")])
            return content.decode()
        except (*_DAMAGED, OSError):
            raise Invalid([Fault(f"/{name}", "damaged, or no text", AGAIN, "unreadable")]) from None

    def json(self, name: str) -> dict[str, Any]:
        """A part that is a JSON object; an empty one where it is not there. Raises Invalid."""
        told = self.parsed(name) if name in self.names else {}
        if not isinstance(told, dict):
            raise Invalid([Fault(f"/{name}", "expected a JSON object", AGAIN, "unreadable")])
        return told

    def parsed(self, name: str) -> Any:
        """A part that is JSON. Raises Invalid."""
        try:
            return json_text.parsed(self.text(name).encode(), name)
        except Invalid as invalid:
            raise Invalid([Fault(f"/{name}", fault.message, AGAIN, fault.code) for fault in invalid.faults]) from None


def wanted(names: Collection[str]) -> Collection[str]:
    """Of a folder's files those that are read."""
    return [name for name in names if name in PARTS and not (name == TORCH and ARRAYS in names)]


def of_path(path: Path) -> Folder:
    """A folder on this machine. Raises Invalid: it is none of a model."""
    names = {name for name in PARTS if (path / name).is_file()}
    if above(names) is None:
        raise Invalid([Fault("", f"{path.name} has no {CONFIG} beside a {ARRAYS}", AGAIN, "missing")])
    if MODULES not in names and (path.parent / MODULES).is_file():
        raise Invalid([_inner(path.name)])
    return Folder(frozenset(names), lambda name: (path / name).open("rb"))


@contextmanager
def of_archive(file: IO[bytes], scratch: IO[bytes]) -> Iterator[Folder]:
    """A zip or a tar of a folder, or of what lies in it.

    Args:
        scratch: an empty file; the arrays are written there, so that they can be read in any order.

    Raises:
        Invalid: it is neither, or damaged, or holds no such folder.
    """
    start = file.read(4)
    file.seek(0)
    with ExitStack() as stack:
        with _readable(""):
            members, links, opened = stack.enter_context(_zip(file) if start == b"PK\3\4" else _tar(file))
        at = above(members)
        if at is None and above(members | links) is not None:
            hint = "tar ch follows links; of the library's cache name the folder that --local-dir made"
            raise Invalid([Fault("", "its files are links, and links are not followed", hint, "missing")])
        if at is None:
            raise Invalid([Fault("", f"no {CONFIG} beside a {ARRAYS} in it", AGAIN, "missing")])
        if at and MODULES in {name.removeprefix(at[: at[:-1].rfind("/") + 1]) for name in members}:
            raise Invalid([_inner(at)])
        names = frozenset(name.removeprefix(at) for name in members if name.startswith(at)) & PARTS

        def part(name: str) -> IO[bytes]:
            with _readable(f"/{name}"):
                source = opened(at + name)
                if name not in (ARRAYS, TORCH):
                    return source
                scratch.seek(0)
                shutil.copyfileobj(source, scratch, 2**20)
            scratch.truncate()
            scratch.seek(0)
            return os.fdopen(os.dup(scratch.fileno()), "rb")

        yield Folder(names, part)


def _inner(name: str) -> Fault:
    hint = "send the folder around it, or its network alone, if what stands behind it is not wanted"
    return Fault("", f"{name} is a part of a folder of sentence-transformers", hint, "unsupported_format")


@contextmanager
def _readable(pointer: str) -> Iterator[None]:
    """Hostile bytes are answered by many an exception; all of them mean that the archive is damaged."""
    try:
        yield
    except _DAMAGED:
        raise Invalid([Fault(pointer, "the archive is damaged", AGAIN, "unreadable")]) from None


Members = tuple[set[str], set[str], Callable[[str], IO[bytes]]]
"""Files, links, and how a file is opened."""


@contextmanager
def _zip(file: IO[bytes]) -> Iterator[Members]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _check_count(len(infos))
        sizes = {
            info.filename: info.file_size
            for info in infos
            if not info.is_dir() and not info.flag_bits & 1 and not stat.S_ISLNK(info.external_attr >> 16)
        }
        if len(sizes) < len([info for info in infos if not info.is_dir()]):
            raise ValueError("links, encrypted members, or two of one name")

        def opened(name: str) -> IO[bytes]:
            _check_size(sizes[name], name)
            return archive.open(name)

        yield set(sizes), set(), opened


@contextmanager
def _tar(file: IO[bytes]) -> Iterator[Members]:
    """Not packed, or by gzip: `tar c` and `tar cz`."""
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:gz" if packed else "r:") as archive:
        members, links = dict[str, tarfile.TarInfo](), set[str]()
        for number, info in enumerate(archive, 1):
            _check_count(number)
            name = info.name.removeprefix("./")
            if info.isreg():
                members[name] = info
            elif info.issym() or info.islnk():
                links.add(name)

        def opened(name: str) -> IO[bytes]:
            _check_size(members[name].size, name)
            source = archive.extractfile(members[name])
            assert source is not None
            return source

        yield set(members), links, opened


def _check_count(count: int) -> None:
    if count > MOST_MEMBERS:
        raise Invalid([Fault("", f"more than {MOST_MEMBERS} members", AGAIN, "too_large")])


def _check_size(size: int, name: str) -> None:
    if size > LARGEST:
        raise Invalid([Fault(f"/{name}", "longer than it may be", "send a smaller model", "too_large")])
