"""The parent's side of reading an upload: a child reads it, within a deadline, and answers a schema or faults."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Literal

from app.data import disk
from app.data.upload_limits import MIB, UploadLimits
from app.settings import settings
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid

Format = Literal["npz", "csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("npz", "csv", "jsonl", "parquet")

LOG = logging.getLogger(__name__)

_LONGEST_ANSWER = 16 * MIB
_TURNS = threading.BoundedSemaphore(2)  # each reader may take gigabytes: the others wait for a turn


def inspect_upload(
    raw: Path,
    format: str | None,
    out: Path,
    targets: Sequence[str] | None = None,
    limits: UploadLimits | None = None,
    inputs: Sequence[str] = (),
) -> Schema:
    """Reads `raw` in a child of its own and leaves the prepared file at `out`, which appears only when all went well.

    Args:
        format: one of FORMATS; None to look at the first bytes.
        targets: the columns to learn, each `name` or `name:type`; None for the format's own rule.
        inputs: the columns to be features, each `name` or `name:type`; none for all that are of use.

    Returns:
        The schema of the data.

    Raises:
        Invalid: with every fault, pointers below /file, /format and /targets.
        OSError: the disk is full.
    """
    limits = limits or UploadLimits()
    file_format = format_of(raw, format)
    options = json.dumps(
        {"options": {"targets": list(targets or []), "inputs": list(inputs)}, "limits": asdict(limits)}
    )
    with tempfile.TemporaryDirectory(prefix="inspect-", dir=out.parent) as folder:
        answer, written, complaint = (Path(folder) / name for name in ("answer", "out", "complaint"))
        command = [
            sys.executable,
            "-P",
            "-m",
            "app.data.inspect",
            str(raw.resolve()),
            file_format,
            str(written),
            options,
        ]
        with answer.open("wb") as stdout, complaint.open("wb") as stderr, _TURNS:
            code = _run(command, stdout.fileno(), stderr.fileno(), Path(folder), limits.wall_seconds)
        if code:
            LOG.warning(
                "the reader of an upload ended with %s: %s",
                code,
                complaint.read_bytes()[-2000:].decode(errors="replace"),
            )
        result = _answer(answer, code)
        if "faults" in result:
            raise Invalid(Fault(**fault) for fault in result["faults"])
        schema = Schema.model_validate(result["schema"])
        written.replace(out)
    return schema


@cache
def protections() -> list[str]:
    """The protections that confine readers of uploads on this machine, see `app/data/sandbox.py`. Found out once, in a second or two."""
    with tempfile.TemporaryDirectory(prefix="walls-") as folder:
        command = [sys.executable, "-P", "-m", "app.data.sandbox"]
        process = subprocess.run(command, env=_environment(Path(folder)), capture_output=True, timeout=60, check=False)
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
    compressed = start.startswith(b"\x1f\x8b")
    if compressed:
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, 4096)
        except zlib.error:
            start = b""
        if not start:
            raise Invalid([Fault("/file", "the gzip archive is damaged, or empty", "compress the file again")])
    if start.startswith((b"PK\3\4", b"PK\5\6")) and not compressed:
        return "npz"
    if start.startswith(b"PAR1"):
        return "parquet"
    for beginning, what in _OTHERS.items():
        if start.startswith(beginning):
            raise Invalid([Fault("/file", f"this is {what}", _EXPECTED, "unsupported_format")])
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise Invalid([Fault("/file", "the file is empty", _EXPECTED)])
    if b"\0" in start:
        raise Invalid([Fault("/file", "neither an npz, nor Parquet, nor text", _EXPECTED, "unsupported_format")])
    return "jsonl" if re.match(rb"\{|\[\s*\{", text) else "csv"


_EXPECTED = "send an npz (numpy.savez), a CSV, JSON lines or Parquet"
_OTHERS = {
    b"\x93NUMPY": "a single array (npy)",
    b"\x80": "a pickle, which can run code when it is read",
    b"\x89HDF": "an HDF5 file",
    b"PK\3\4": "an archive within a gzip archive",
    b"%PDF": "a PDF",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}


def _run(command: list[str], stdout: int, stderr: int, folder: Path, seconds: float) -> int:
    """The child's exit code; -SIGKILL when its time was up."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=_environment(folder),
        cwd=folder,
        start_new_session=True,
    ) as child:
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return -signal.SIGKILL


def _environment(folder: Path) -> dict[str, str]:
    """A child inherits no secret: its environment is made here. Plugins may bring input kinds, so it finds them where the parent does."""
    plugins = settings().plugins
    theirs = os.environ.get("PYTHONPATH", "") if plugins else ""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), theirs])),
        "BEQUEST_PLUGINS": ",".join(plugins),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # Other pools and arenas reserve address space by the gigabyte, which the limit could then not withhold.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "1",
    }


def _answer(path: Path, code: int) -> dict[str, Any]:
    """The child's answer. Raises Invalid where the child was killed or crashed: that is the file's fault, and said without guessing.
    Raises OSError where the disk was full."""
    if code == 0 and path.stat().st_size <= _LONGEST_ANSWER:
        result: dict[str, Any] = json.loads(path.read_bytes())
        return result
    if code == disk.NO_ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        message = "reading it took longer than an upload may take"
    elif code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
        message = "reading it took more memory than an upload may take, or the file is damaged"
    else:
        message = "the file cannot be read"
    raise Invalid(
        [
            Fault(
                "/file",
                message,
                "send fewer or smaller rows, saved again with numpy.savez or as plain CSV",
                "unreadable",
            )
        ]
    )
