"""Programs that this one starts: each in a session of its own, so that Ctrl-C reaches only the parent, and none outlives its parent.

Their code and their files are ours: modules never come from the folder in which somebody happens to stand, and folders and logs belong
to this user. Others can neither put anything into them nor a link in their place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import psutil

KEEP_ALIVE_SECONDS = 75
"""How long a server of ours keeps an idle connection. After uvicorn's own 5 s a connection may close just as a request is on its way, and
its sender (httpx pools for 5 s, proxies for 60) cannot tell whether it was done."""

BACKLOG = 128
"""How many clients may wait for the API to accept them. asyncio accepts as many at once, before it closes those that make room for them."""

CODE = Path(__file__).resolve().parent.parent
"""The folder that holds our packages: a checkout, or where pip has put them."""

LONGEST_LOG = 20 * 2**20
"""A log keeps so many bytes, and as many in its older part."""

ROUND_SECONDS = 5.0
"""How often a watched program is asked, and how long it may take to answer."""

_TIMES_AT_START = 3  # so much more patience until the first answer
_MOST_FILES = 65_536
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class NotStarted(Exception):
    """A program did not come up. Its message is one sentence for the person who started it."""


class NotOurs(PermissionError):
    """A folder or file of another user, or a link. Its message is one sentence for the person who named the place."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EPERM, message)

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True)
class Program:
    """What to run and how to end it.

    `frozen_after`: seconds without an answer by `ready` after which it is taken for frozen; None: nobody asks. Once it has answered, only
    those count in which it is `silent`: a program that refuses is not frozen. `user` is a user id to run as (needs root).
    `orphaned` is the signal that the kernel sends when the parent dies, however it dies. It fires when the *thread* that started the
    program ends, so programs are started from the main thread.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], bool] | None = None
    frozen_after: float | None = None
    silent: Callable[[], bool] = lambda: True
    user: tuple[int, int] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphaned: signal.Signals = signal.SIGKILL


@dataclass
class Running:
    """A started program and the moment of its start, by the monotonic clock."""

    program: Program
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    answered: bool = False
    unanswered: int = 0  # rounds of the watch in a row

    def alive(self) -> bool:
        return self.process.poll() is None

    def is_frozen(self) -> bool:
        """Whether it runs and has not answered for as long as `frozen_after` says; at its start three times as long."""
        patience = self.program.frozen_after
        if patience is None or not self.alive():
            return False
        return self.unanswered * ROUND_SECONDS >= patience * (1 if self.answered else _TIMES_AT_START)

    def end_frozen(self) -> None:
        """Kills it, since it hears no request. A Python first writes to its log where it hangs (PYTHONFAULTHANDLER)."""
        self.process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        self.kill()

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
    """Starts a program. Its output goes to its log, and the log's folder is where it works: nobody else can write there."""
    user, group = program.user or (None, None)
    own_folder(program.log.parent)
    cut(program.log)
    with open_own(program.log) as log:
        try:
            process = subprocess.Popen(
                program.argv,
                env=dict(program.env),
                cwd=program.log.parent,
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
    running = Running(program, process)
    if program.frozen_after is not None:
        threading.Thread(target=_watch, args=(running,), name=f"watch {program.name}", daemon=True).start()
    return running


def _watch(running: Running) -> None:
    """Rounds are counted, not seconds: a machine that slept, or this program while it was stopped, has asked nobody."""
    assert running.program.ready is not None
    while running.alive():
        until = time.monotonic() + ROUND_SECONDS
        if running.program.ready():
            running.answered, running.unanswered = True, 0
        elif running.answered and not running.program.silent():
            running.unanswered = 0
        else:
            running.unanswered += 1
        time.sleep(max(0.0, until - time.monotonic()))


def cut(log: Path) -> None:
    """Empties a log that has become too long, also while it is written to; its end is kept as the older part.

    Programs append to their logs, so these can be emptied under them. Lines that come while the end is copied are lost.
    """
    with suppress(OSError):  # the next call tries again
        if log.stat().st_size <= LONGEST_LOG:
            return
        older = log.with_suffix(".1.log")
        older.unlink(missing_ok=True)
        with open_own(log) as long:
            with suppress(OSError), open_own(older) as part:  # on a full disk the log alone makes room
                long.seek(-LONGEST_LOG, os.SEEK_END)
                part.write(long.read(LONGEST_LOG))
            long.truncate(0)


# ---------------------------------------------------------------- our code, our folders, our files


@cache
def version() -> str:
    """The version of all programs of ours."""
    try:
        return metadata.version("bequest")
    except metadata.PackageNotFoundError:
        return "unknown"


def safe_path(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a Python of ours, whose modules never come from the folder that it works in.

    PYTHONPATH keeps the absolute folders that a person has named, for plugins. An empty entry means the working folder, as does a
    relative one wherever that is.
    """
    named = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    if CODE.name not in (
        "site-packages",
        "dist-packages",
    ):  # these are known, and named first would hide the standard library
        named.insert(0, str(CODE))
    path = os.pathsep.join(dict.fromkeys(named))
    others = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    return {**others, "PYTHONSAFEPATH": "1", **({"PYTHONPATH": path} if path else {})}


def own_folder(path: Path, mode: int | None = 0o700, owner: tuple[int, int] | None = None) -> Path:
    """`path` as a folder of this user, made if need be, with that mode (None: as it is).

    Args:
        owner: the user and group that shall have it instead (needs root).

    Raises:
        NotOurs: it belongs to another user, or is a link.
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):  # a folder, a link or a file, which is looked at below
        path.mkdir(mode=0o700, parents=True)
    folder = _open(path, os.O_RDONLY | os.O_DIRECTORY, owner)
    try:
        if owner:
            os.fchown(folder, *owner)
        if mode is not None:
            os.fchmod(folder, mode)
    finally:
        os.close(folder)
    return path


def open_own(path: Path) -> BinaryIO:
    """`path` as a file of this user, made if need be and closed to others, to read and to append to.

    Raises:
        NotOurs: it belongs to another user, or is a link.
        OSError: it cannot be made.
    """
    file = os.fdopen(_open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+b")
    os.fchmod(file.fileno(), 0o600)
    return file


def _open(path: Path, flags: int, owner: tuple[int, int] | None = None) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        if path.is_symlink():
            raise NotOurs(f"{path} is a link, which may lead anywhere: remove it") from None
        raise
    uid = os.fstat(descriptor).st_uid
    if uid != os.geteuid() and (owner is None or uid != owner[0]):
        os.close(descriptor)
        us = user_name(os.geteuid())
        raise NotOurs(
            f"{path} belongs to {user_name(uid)}, and this is {us}: run as {user_name(uid)}, or choose another place"
        )
    return descriptor


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def set_limits() -> None:
    """For this process and all that it starts: as many open files as it may have, since connections spend the usual 1,024 soon,
    and no core dumps, which would hold passwords and data.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


# ---------------------------------------------------------------- life and death


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the kernel sends `number` to the child when the thread that started it ends."""
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare


def adopt_orphans() -> None:
    """Orphans of this process's children become its own, not those of the machine's first process, so they can be found."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that `pid` leads; nothing happens if it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def runs(pid: int, argument: str) -> bool:
    """Whether `pid` is a live process that has `argument` on its command line: a number alone may have been given to another."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and argument in process.cmdline()
    except (psutil.Error, ValueError):  # it has ended, is hidden from us, or is no number of a process
        return False


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
