"""Trainer processes: started ahead of need, handed one job each, listened to, stopped, killed.

A trainer imports Keras, which takes seconds; so one warm spare waits, and the next is started while a job runs. It lives in a
session of its own, dies with this process, as does all that it has started itself (`worker.training.process.guard`), and its
environment holds no address and no secret.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from app.programs import CODE, adopt_orphans, die_with_parent, kill_group, own_folder, safe_path
from app.settings import settings
from app.spec import backends
from worker import machine, reports
from worker.reports import Exit
from worker.training.process import guard
from worker.training.process.guard import MARK

LONGEST_LINE = 8 * 2**20
_ADDRESSES, _ADDRESSES_PER_CORE = 4 * 2**30, 2**29
_BLOCK = 1 << 16
_REAP_SECONDS = 2.0
_AGAIN_SECONDS = 5.0
_OOM_COUNTERS = ("/proc/vmstat", "/sys/fs/cgroup/memory.events")
_PASSED_ON = re.compile(
    r"PATH|PYTHONPATH|VIRTUAL_ENV|LD_LIBRARY_PATH|LANG|LC_\w+|TZ|KERAS_BACKEND|TF_\w+|XLA_\w+|JAX_PLATFORMS|JAX_COMPILATION_CACHE_DIR|CUDA_\w+|NVIDIA_\w+"
    r"|OMP_\w+|MKL_\w+|OPENBLAS_\w+|BEQUEST_(?:PLUGINS|FILE_ROOTS|MAX_\w+|SPARE_\w+)"
)
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)

log = structlog.get_logger(__name__)


class Garbled(Exception):
    """The trainer sends no report, but a line longer than any report may be."""


@dataclass(frozen=True)
class Ended:
    """How a trainer's process ended. `status` is None for anything that `Exit` does not name."""

    status: Exit | None
    signal: int | None
    out_of_memory: bool

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit status {self.status.name.lower() if self.status is not None else 'unknown'}"
        cause = ", the kernel had run out of memory" if self.out_of_memory else ""
        return f"signal {signal.Signals(self.signal).name}{cause}"


class Trainers:
    """Starts trainers and keeps one warm. Call it from the main thread: a trainer dies with the thread that made it."""

    def __init__(self) -> None:
        self._spare: Trainer | None = None
        self._taken: Trainer | None = None
        self._again_at = 0.0
        self._lock = threading.Lock()  # `device` may be asked from any thread

    def warm(self) -> None:
        """Makes sure that a spare is there or on its way. No job needs it yet: where none can be started, a later call tries again."""
        if time.monotonic() < self._again_at:
            return
        try:
            with self._lock:
                self._spare = self._living() or Trainer()
        except OSError as error:
            log.warning("spare_failed", error=error.strerror)
            self._again_at = time.monotonic() + _AGAIN_SECONDS

    def device(self) -> str | None:
        """`cpu` or `gpu`, once the spare or the trainer taken last has reported it: short jobs leave a spare no time to."""
        with self._lock:
            both = [trainer for trainer in (self._spare, self._taken) if trainer is not None and trainer.is_usual]
            devices = [trainer.device() for trainer in both]
        name = next(filter(None, devices), None)
        return name and ("cpu" if name == "cpu" else "gpu")

    def take(self, assignment: dict[str, Any], out: Path) -> Trainer:
        """A trainer that has been given the job. It may still be importing; the assignment waits in its pipe.

        Raises:
            OSError: none can be started.
        """
        with self._lock:
            trainer = self._with(assignment["spec"].get("backend", "auto"))
        trainer.give(assignment, out)
        self._taken = trainer  # not before: what waits is listened to by `device`
        return trainer

    def _with(self, backend: str) -> Trainer:
        """The spare, or another trainer where a job asks for another backend than the spare has."""
        if backend not in ("auto", backends.default()):
            return Trainer(backend)
        trainer, self._spare = self._living() or Trainer(), None
        return trainer

    def _living(self) -> Trainer | None:
        """The spare, unless it has died."""
        if self._spare is not None and (ended := self._spare.ended()) is not None:
            log.warning("spare_died", ended=str(ended), last_words=self._spare.last_words())
            self._spare.close()
            self._spare = None
        return self._spare

    def close(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None


class Trainer:
    """One trainer process: first a spare, then a job's. `backend`: another one than the default."""

    def __init__(self, backend: str | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self.is_usual = backend is None
        self._killed = self._given = self._bounded = False
        self._mark = uuid.uuid4().hex  # the processes that it starts carry this mark, wherever they go
        self._started: set[int] = set()
        self._lock = threading.Lock()  # the watchdog kills from a thread of its own
        self._ooms = _oom_kills()
        self._ready: reports.Ready | None = None
        adopt_orphans()  # to be reaped by this process, where the machine's first one may not do so
        self._incoming, self._outgoing = bytearray(), b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.training", "--spare"],
            cwd=CODE,
            env={**environment(), **({} if backend is None else {"KERAS_BACKEND": backend}), MARK: self._mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
            preexec_fn=_prepared(die_with_parent(signal.SIGKILL)),  # noqa: PLW1509 - system calls, no lock taken
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)

    def give(self, assignment: dict[str, Any], out: Path) -> None:
        line = json.dumps({"assignment": assignment, "out": str(out)}, separators=(",", ":"), allow_nan=False)
        self._outgoing, self._given = line.encode() + b"\n", True
        self._send()

    def device(self) -> str | None:
        """`cpu` or the kind of accelerator, once it has said so: a spare that waits is listened to here, a job's trainer by `reports`."""
        if self._ready is None and not self._given:
            self.reports(0)
        return self._ready.device if self._ready is not None else None

    def bound(self, resident: int) -> None:
        """Keeps a trainer on the CPU from asking at once for far more memory than the `resident` bytes that it may fill.

        Only filled memory is watched; TensorFlow takes more addresses than it fills, and more of them with more cores.
        On a GPU the driver takes addresses for the whole of its memory, so there is no bound.
        """
        if self._bounded or self.device() != "cpu":
            return
        self._bounded = True
        most = resident + _ADDRESSES + _ADDRESSES_PER_CORE * (os.cpu_count() or 1)
        with contextlib.suppress(OSError, ValueError):  # it has just ended; or it is bound more tightly already
            resource.prlimit(self.pid, resource.RLIMIT_AS, (most, most))

    def reports(self, timeout: float) -> list[Any]:
        """The reports that have come, after at most `timeout` seconds of waiting for the first; none when time or the trainer is over.

        Raises:
            Garbled: a line has no end within reason.
        """
        writers = [self._stdin] if self._outgoing else []
        readable, writable, _ = select.select([self._stdout], writers, [], timeout)
        if writable:
            self._send()
        if readable and not self._receive() and self.ended() is None:
            time.sleep(min(timeout, 0.02))  # it closed its output and is about to end
        *lines, rest = self._incoming.split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise Garbled
        self._incoming = rest
        arrived = [report for line in lines if (report := _decoded(bytes(line))) is not None]
        for report in arrived:
            if isinstance(report, reports.Ready):
                self._ready = report
        return arrived

    def ended(self) -> Ended | None:
        """None while it runs. Reports may still wait to be read."""
        code = self._process.poll()
        if code is None:
            return None
        if code >= 0:
            return Ended(Exit(code) if code in set(Exit) else None, None, False)
        by_kernel = -code == signal.SIGKILL and not self._killed and _oom_kills() > self._ooms
        return Ended(None, -code, by_kernel)

    def stop(self) -> None:
        """Asks it to save a checkpoint and end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and all that it started, now. Safe from any thread."""
        self._killed = True
        members = self._members(machine.process_tree(self.pid) if self._process.returncode is None else [])
        # First those that have left the group: the guard, which is of it, ends what is left if this worker dies meanwhile.
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) != self.pid:
                    os.kill(pid, signal.SIGKILL)
        if members:
            kill_group(self.pid)

    def is_gone(self) -> bool:
        """Whether neither it nor anything that it has started is left: looked at, not taken for granted."""
        return self._process.poll() is not None and not self._members()

    def _members(self, more: Iterable[int] = ()) -> list[int]:
        """The live processes of all that it has started, itself included. Those that have ended are reaped."""
        living, dead = guard.members(self.pid, self._mark)
        with self._lock:
            self._started |= {*more, *living, *dead}
            self._started -= machine.reap(self._started - {self.pid})
            return [pid for pid in self._started if machine.is_running(pid)]

    def last_words(self) -> str:
        """The end of what it wrote to stderr before it had a job and its log."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def close(self) -> None:
        """Kills what is left of it and frees its pipes."""
        self.kill()
        self._process.wait()
        until = time.monotonic() + _REAP_SECONDS
        while not self.is_gone() and time.monotonic() < until:
            self.kill()  # again: what was just being started has not been seen the first time
            time.sleep(0.005)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            pipe.close()

    def _send(self) -> None:
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(self._stdin, self._outgoing) :]
        except BlockingIOError:
            pass  # the pipe is full: the rest goes out while we listen
        except BrokenPipeError:
            self._outgoing = b""  # it has ended, which `ended` will say

    def _receive(self) -> bool:
        """Reads what is there, up to a few blocks so that heartbeats stay on time; whether there was anything."""
        some = False
        for _ in range(64):
            try:
                block = os.read(self._stdout, _BLOCK)
            except BlockingIOError:
                return some
            if not block:
                return some
            some = True
            self._incoming += block
        return some


def environment() -> dict[str, str]:
    """What a trainer may know: how to find Python, its device and its threads. No address, no password, no home of a person."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if _PASSED_ON.fullmatch(name) and not _SECRET.search(name) and "://" not in value
    }
    home = settings().home
    for folder in (home, home / "tmp"):
        own_folder(folder)
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "KERAS_BACKEND": "tensorflow",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # else JAX takes most of a GPU at once, though others need it too
        **safe_path(passed),
        "HOME": str(home),
        "KERAS_HOME": str(home / "keras"),
        "TMPDIR": str(home / "tmp"),  # until it has a job, whose folder takes such files then
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
    }


def _prepared(first: Callable[[], None]) -> Callable[[], None]:
    def prepare() -> None:
        first()
        adopt_orphans()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:  # when memory runs out, the kernel should take the trainer, not the worker or the database
            with open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 - between fork and exec, the plainest call
                score.write("500")
        except OSError:
            pass

    return prepare


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory, on this machine or in this container."""
    total = 0
    for place in _OOM_COUNTERS:
        try:
            lines = Path(place).read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return total


def _decoded(line: bytes) -> Any:
    if not line.strip():
        return None
    try:
        return reports.decode(line)
    except ValueError as error:
        log.warning("not_a_report", error=str(error), length=len(line))
        return None
