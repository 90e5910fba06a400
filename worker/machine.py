"""What this machine has, and what a trainer takes of it: memory, disk, processes, an accelerator."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil

from app.settings import settings

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARE = 0.9
_MOST_FREE_BYTES_ASKED = 2**30
_NEXT_TO_NOTHING = 2**20


def main_memory() -> int:
    """Bytes of main memory that this process may use: the machine's, or its control group's where that is less."""
    limits = [_PAGE * os.sysconf("SC_PHYS_PAGES")]
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(place).read_text()))
        except (OSError, ValueError):  # another version of control groups, or "max"
            continue
    return min(limits)


def memory_allowed() -> int:
    """Bytes of main memory that a trainer and all that it starts may fill."""
    return settings().max_memory_bytes or int(_SHARE * main_memory())


def has_room() -> bool:
    """Whether the disk has room for a job's files; a full one would only fail every job in turn."""
    settings().jobs_dir.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(settings().jobs_dir)
    return disk.free >= min(disk.total // 20, _MOST_FREE_BYTES_ASKED)


def disk_is_full() -> bool:
    """Whether nothing to speak of can be written to a job's folder."""
    return shutil.disk_usage(settings().jobs_dir).free < _NEXT_TO_NOTHING


def process_tree(pid: int) -> list[int]:
    """The process and all that it has started, directly or not, as far as they live; none where it is gone."""
    try:
        first = psutil.Process(pid)
        members = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    return [member.pid for member in members if is_running(member.pid)]


def is_running(pid: int) -> bool:
    """Whether the process runs: one that has ended and is not reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def reap(pids: Iterable[int]) -> set[int]:
    """Reaps the processes that this one has adopted and that have ended, and returns them."""
    reaped = set()
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # another's to reap
            if os.waitpid(pid, os.WNOHANG)[0]:
                reaped.add(pid)
    return reaped


def resident_bytes(pids: Iterable[int]) -> int:
    """Main memory that the processes fill with what is theirs. Pages of files do not count: the system takes them back when it needs
    them, and a job that reads a large file would be ended for it."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            info = psutil.Process(pid).memory_info()
            total += info.rss - info.shared
    return total


def folder_bytes(folder: Path) -> int:
    """What the files below a folder take of the disk; links are not followed."""
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += 512 * entry.stat(follow_symlinks=False).st_blocks
        except OSError:  # it has just been removed
            continue
    return total


def accelerator() -> tuple[str | None, int | None]:
    """Name and memory of the first GPU, by the driver's own tool: asking Keras would import it."""
    name, _, mebibytes = _of_accelerator("name,memory.total").rpartition(",")
    return (name.strip(), int(mebibytes) * 2**20) if mebibytes.strip().isdecimal() else (None, None)


def accelerator_bytes() -> int | None:
    """Memory in use on the first GPU; None where there is none."""
    mebibytes = _of_accelerator("memory.used").strip()
    return int(mebibytes) * 2**20 if mebibytes.isdecimal() else None


def _of_accelerator(query: str) -> str:
    ask = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    try:
        answer = subprocess.run(
            [*ask, *(["-i", chosen] if chosen else [])], capture_output=True, text=True, timeout=10, check=True
        )
        return answer.stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""
