"""A child that reads a stranger's bytes, seen from the parent: it is given time and an environment, and answers one line of JSON."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from app.data import disk
from app.data.upload import Progress, unseen
from app.data.upload_limits import MIB
from app.settings import settings
from app.spec.faults import Fault, Invalid

LOG = logging.getLogger(__name__)

_LONGEST_ANSWER = 16 * MIB
_LOOK_SECONDS = 0.5


def ask(command: list[str], folder: Path, seconds: float, hint: str, progress: Progress = unseen) -> dict[str, Any]:
    """What the child answers.

    Args:
        folder: the child's own; it writes `progress` there.
        seconds: wall time.
        hint: what to do where the child came to grief.
        progress: is told now and then how far the child has come.

    Raises:
        Invalid: the child found faults, was killed, or crashed: that is the file's fault, and said without guessing.
        OSError: the disk is full.
    """
    answer, complaint = folder / "answer", folder / "complaint"
    with answer.open("wb") as stdout, complaint.open("wb") as stderr:
        code = _run(command, stdout.fileno(), stderr.fileno(), folder, seconds, progress)
    if code:
        words = complaint.read_bytes()[-2000:].decode(errors="replace")
        LOG.warning("the reader of an upload ended with %s: %s", code, words)
    result = _answer(answer, code, hint)
    if "faults" in result:
        raise Invalid(Fault(**fault) for fault in result["faults"])
    return result


def environment(folder: Path) -> dict[str, str]:
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


def _run(command: list[str], stdout: int, stderr: int, folder: Path, seconds: float, progress: Progress) -> int:
    """The child's exit code; -SIGKILL when its time was up."""
    until, told = time.monotonic() + seconds, ""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment(folder),
        cwd=folder,
        start_new_session=True,
    ) as child:
        while True:
            try:
                return child.wait(max(0.0, min(_LOOK_SECONDS, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= until:
                    child.kill()
                    child.wait()
                    return -signal.SIGKILL
            told = _tell(folder / "progress", told, progress)


def _tell(path: Path, told: str, progress: Progress) -> str:
    """Tells `progress` what the child has written down since. Its file is believed to be two numbers and nothing more."""
    try:
        with path.open("rb") as file:
            text = file.read(48).decode("ascii").strip()
        if text and text != told:
            done, total = (int(number) for number in text.split())
            progress(done, total)
    except (OSError, ValueError):
        return told
    return text


def _answer(path: Path, code: int, hint: str) -> dict[str, Any]:
    """The child's answer. Raises Invalid where the child was killed or crashed, OSError where the disk was full."""
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
    raise Invalid([Fault("/file", message, hint, "unreadable")])
