"""Programs that this one starts: each in a session of its own, so that Ctrl-C reaches only the parent, and none outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

KEEP_ALIVE_SECONDS = 75
"""How long a server of ours keeps an idle connection. After uvicorn's own 5 s it closes some just as a request is on its way, and whoever
sent that (httpx pools for 5 s, proxies for 60) cannot tell whether it was done."""

BACKLOG = 256
"""How many clients may wait for the API to accept them. asyncio accepts as many at once, before it closes those that make room for them."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_LOG = 20 * 2**20


class NotStarted(Exception):
    """A program did not come up. Its message is one sentence for the person who started it."""


@dataclass(frozen=True)
class Program:
    """What to run and how to end it.

    `orphaned` is the signal that the kernel sends when the parent dies, however it dies. It fires when the *thread* that
    started the program ends, so programs are started from the main thread. `user` is a user id to run as (needs root).
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], bool] | None = None
    user: tuple[int, int] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphaned: signal.Signals = signal.SIGKILL


@dataclass
class Running:
    """A started program and the moment of its start, by the monotonic clock."""

    program: Program
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)

    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self, seconds: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Returns when the program answers.

        Raises:
            NotStarted: it ended or did not answer in time; the end of its log is in the message.
        """
        until = time.monotonic() + seconds
        while self.program.ready is not None and not self.program.ready():
            if not self.alive():
                raise NotStarted(
                    f"{self.program.name} ended with status {self.process.returncode}: {self.last_words()}"
                )
            if time.monotonic() > until or given_up():
                raise NotStarted(f"{self.program.name} did not answer within {seconds:.0f} s: {self.last_words()}")
            time.sleep(0.05)

    def ask_to_stop(self) -> None:
        if self.alive():
            self.process.send_signal(self.program.stop_signal)

    def stop(self, seconds: float) -> None:
        """Asks, waits, and kills what is left of its session."""
        self.ask_to_stop()
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        kill_group(self.process.pid)
        self.process.wait()

    def last_words(self) -> str:
        try:
            lines = self.program.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return "it left no log"
        return " / ".join(line.strip() for line in lines[-3:]) or "its log is empty"


def start(program: Program) -> Running:
    """Starts a program; its output goes to its log, which keeps one older part once it is long."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    if program.log.exists() and program.log.stat().st_size > _LONGEST_LOG:
        program.log.replace(program.log.with_suffix(".1.log"))
    user, group = program.user or (None, None)
    with program.log.open("ab") as log:
        try:
            process = subprocess.Popen(
                program.argv,
                env=dict(program.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(program.orphaned),  # noqa: PLW1509 - one system call, no lock taken
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        except OSError as error:
            raise NotStarted(f"{program.name} could not be started: {program.argv[0]}: {error.strerror}") from error
    return Running(program, process)


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the kernel sends `number` to the child when the thread that started it ends."""
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare


def adopt_orphans() -> None:
    """What the children of this process leave behind becomes its child, not that of the machine's first process, so it can be found."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that `pid` leads; nothing happens if it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def runs(pid: int, argument: str) -> bool:
    """Whether `pid` is a live process that has `argument` on its command line: a number alone may have been given to another."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z" and argument.encode() in line.split(b"\0")


def stop_stranger(pid: int, argument: str, *steps: tuple[signal.Signals, float]) -> bool:
    """Ends a process that is no child of ours, with each signal in turn and its seconds to obey; whether it is gone."""
    for number, seconds in steps:
        if not runs(pid, argument):
            return True
        os.kill(pid, number)
        until = time.monotonic() + seconds
        while runs(pid, argument) and time.monotonic() < until:
            time.sleep(0.05)
    return not runs(pid, argument)
