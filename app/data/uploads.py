"""The parent's side of reading an upload: a child reads it, within a deadline, and answers a schema or faults."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
import threading
import zlib
from dataclasses import asdict
from functools import cache
from pathlib import Path

from app.data import reader_process
from app.data.readers import FORMATS, Format
from app.data.upload import Progress, unseen
from app.data.upload_limits import UploadLimits
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import Intake, UploadOptions

LOG = logging.getLogger(__name__)

MAKE_AGAIN = "send fewer or smaller rows or files, or make the file again"

_TURNS = threading.BoundedSemaphore(2)  # each reader may take gigabytes: the others wait for a turn


def inspect_upload(
    raw: Path,
    format: str | None,
    out: Path,
    options: UploadOptions | None = None,
    limits: UploadLimits | None = None,
    progress: Progress = unseen,
) -> tuple[Schema, Intake]:
    """Reads `raw` in a child of its own and leaves the prepared file at `out`, which appears only when all went well.

    Args:
        format: one of `FORMATS`; None to look at the first bytes.
        options: what the sender said; None for nothing.
        progress: is told now and then how far the child has come.

    Returns:
        The schema of the data, and what became of each part of the upload.

    Raises:
        Invalid: with every fault, pointers below /file, /format and /targets.
        OSError: the disk is full.
    """
    limits = (limits or UploadLimits()).for_bytes(raw.stat().st_size)
    file_format = format_of(raw, format)
    asked = json.dumps({"options": (options or UploadOptions()).model_dump(mode="json"), "limits": asdict(limits)})
    with tempfile.TemporaryDirectory(prefix="inspect-", dir=out.parent) as folder:
        written = Path(folder) / "out"
        command = [
            sys.executable,
            "-P",
            "-m",
            "app.data.inspect",
            str(raw.resolve()),
            file_format,
            str(written),
            asked,
        ]
        with _TURNS:
            result = reader_process.ask(command, Path(folder), limits.wall_seconds, MAKE_AGAIN, progress)
        schema = Schema.model_validate(result["schema"])
        intake = Intake.model_validate(result["intake"])
        written.replace(out)
    return schema, intake


@cache
def protections() -> list[str]:
    """The protections that confine readers of uploads on this machine, see `app/data/sandbox.py`. Found out once, in a second or two."""
    with tempfile.TemporaryDirectory(prefix="walls-") as folder:
        command = [sys.executable, "-P", "-m", "app.data.sandbox"]
        process = subprocess.run(
            command, env=reader_process.environment(Path(folder)), capture_output=True, timeout=60, check=False
        )
    if process.returncode:
        LOG.error("no upload can be read here: %s", process.stderr[-2000:].decode(errors="replace"))
        return []
    names: list[str] = json.loads(process.stdout)
    return names


def format_of(raw: Path, format: str | None) -> Format:
    """The format of the file: as said, else as its first bytes show. Raises Invalid."""
    if format is None:
        return _sniff(raw)
    for name in FORMATS:
        if format == name:
            return name
    raise Invalid(
        [
            Fault(
                "/format",
                "unknown format",
                f"known formats: {', '.join(FORMATS)}; leave it out to have it found",
                "unknown_name",
            )
        ]
    )


def _sniff(raw: Path) -> Format:
    """The format that the first bytes show. Raises Invalid, naming what was found instead where that is known."""
    with raw.open("rb") as file:
        start = file.read(4096)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        length = int.from_bytes(start[26:28], "little")
        return "npz" if start[30 : 30 + length].endswith(b".npy") or start.startswith(b"PK\5\6") else "zip"
    if start.startswith(b"\x1f\x8b"):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, 4096)
        except zlib.error:
            start = b""
        if not start:
            raise Invalid([Fault("/file", "the gzip archive is damaged, or empty", "compress the file again")])
    if start[257:262] == b"ustar":
        return "tar"
    if start.startswith(b"PAR1"):
        return "parquet"
    for beginning, what in _OTHERS.items():
        if start.startswith(beginning):
            raise Invalid([Fault("/file", f"this is {what}", SEND, "unsupported_format")])
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise Invalid([Fault("/file", "the file is empty", SEND)])
    if b"\0" in start:
        raise Invalid([Fault("/file", "neither a known format nor text", SEND, "unsupported_format")])
    return "jsonl" if re.match(rb"\{|\[\s*\{", text) else "csv"


SEND = "send a zip or tar of class folders, CSV, JSON lines or Parquet, or an npz (numpy.savez)"

_OTHERS = {
    b"\x93NUMPY": "a single array (npy)",
    b"\x80": "a pickle, which can run code when it is read",
    b"\x89HDF": "an HDF5 file",
    b"PK\3\4": "an archive within a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\x89PNG": "a single picture",
    b"\xff\xd8\xff": "a single picture",
    b"%PDF": "a PDF",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
