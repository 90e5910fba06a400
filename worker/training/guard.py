"""The trainer's guard: a process that ends the trainer's whole session when the worker is gone, however it went.

The kernel kills a trainer with its worker, but not what the trainer has started itself. The worker holds the other end of standard
input as long as it lives, so the guard only waits for that to hang up. It reads nothing: what comes there is the trainer's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal


def start() -> None:
    """Forks the guard. Call it before anything is imported that starts threads.

    A trainer that a person has started from a terminal is in that terminal's session, and gets none.
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
    while others := _others():  # the guard is of the session, so its number cannot be another's by now
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _others() -> list[int]:
    """What else lives in this session."""
    own, found = os.getsid(0), []
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdecimal()):  # noqa: PTH208 - no import but these
        try:
            with open(f"/proc/{pid}/stat", "rb") as about:  # noqa: PTH123 - as above
                state, _, _, session = about.read().rpartition(b")")[2].split()[:4]
        except (OSError, ValueError):  # it has just ended
            continue
        if int(session) == own and pid != os.getpid() and state != b"Z":
            found.append(pid)
    return found
