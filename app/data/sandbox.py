"""The sandbox of the process that reads a client's bytes: it confines itself after its imports, before it looks at the first byte."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path

_PDEATHSIG, _NO_NEW_PRIVILEGES, _DUMPABLE = 1, 38, 4
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_NOBODY = 65534


def confine(*, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> list[str]:
    """Bounds this process for good: its memory, its processor time, the length of its files; no core dump, no new privileges, no new
    process or thread; another user and no network where the kernel lets us.

    Args:
        memory_bytes: address space beyond what the process has now.

    Returns:
        The names of the protections that hold.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    protections = ["memory", "cpu", "files", "core"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    alone = libc.unshare(_NEW_NETWORK) == 0
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            protections.append("user")
        libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user clears it
    if alone or libc.unshare(_NEW_USER | _NEW_NETWORK) == 0:
        protections.append("network")
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        protections.append("privileges")
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.geteuid() != 0:  # it does not bind root
        protections.append("processes")
    limit = _address_space() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return protections


def main() -> None:
    """Prints the names of the protections that hold here, as JSON: `python -m app.data.sandbox`."""
    sys.stdout.write(json.dumps(confine(memory_bytes=2**28, cpu_seconds=10, file_bytes=2**20)))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
