"""The trainer's guard: a process that ends all processes of the trainer when the worker is gone, for whatever reason.

The kernel kills a trainer with its worker, but not the processes that the trainer has started. Those are found by their session and,
where they have begun one of their own, by the mark in the environment that they were born with. The worker holds the other end of
standard input while it lives, so the guard waits for that to hang up. It reads nothing: the input is the trainer's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

MARK = "_BEQUEST_TRAINER"


def start() -> None:
    """Forks the guard. Call it before an import that starts threads.

    A trainer that a person has started is in the terminal's session and gets no guard.
    """
    if os.getsid(0) == os.getpid() and os.fork() == 0:
        try:
            _watch()
        finally:
            os._exit(0)


def _watch() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for output in (1, 2):  # else the worker would wait for the end of its reports
        os.dup2(nothing, output)
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()  # only a hang-up ends it
    session = os.getsid(0)  # the guard is of it, so its number cannot be another's by now
    mark = os.environ.get(MARK)
    while others := set(members(session, mark)[0]) - {os.getpid()}:
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def members(session: int, mark: str | None) -> tuple[list[int], list[int]]:
    """The living processes of a session or with the mark in their environment; and the session's zombies."""
    living: list[int] = []
    dead: list[int] = []
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdecimal()):  # noqa: PTH208 - no import but these
        try:
            state, _, _, of = _read(pid, "stat").rpartition(b")")[2].split()[:4]
            if int(of) == session or (state != b"Z" and _bears(pid, mark)):
                (dead if state == b"Z" else living).append(pid)
        except (OSError, ValueError):  # it has just ended, or is another user's
            continue
    return living, dead


def _bears(pid: int, mark: str | None) -> bool:
    return mark is not None and f"{MARK}={mark}".encode() in _read(pid, "environ").split(b"\0")


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - as above
        return file.read()
