"""Uploads hostile files and watches what becomes of them: the answer, the process that reads them, and what is left."""

from __future__ import annotations

import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from app.settings import settings
from tests.faults import (
    hostile_archives,
    hostile_csv,
    hostile_members,
    hostile_models,
    hostile_npz,
    hostile_sounds,
    hostile_tables,
    hostile_tags,
)
from tests.faults.hostile_npz import Hostile, Lair
from tests.faults.requests_line import Answer, Connect, Request, fault_in, send

_MODULES = (
    hostile_archives, hostile_npz, hostile_models, hostile_members, hostile_csv, hostile_tables, hostile_sounds, hostile_tags,
)  # fmt: skip
KINDS = [kind for kind in chain.from_iterable(zip_longest(*(module.ALL for module in _MODULES))) if kind]
"""One of each module in turn, so that few files are of every sort."""
LARGE_FROM = 300  # files; fewer are made in sizes for a laptop's minute
MOST_CPU_SECONDS = 62
MOST_GROWTH_MIB = 64
LINES = 2
LONGEST_SECONDS = 300  # for a file that is read aside, until it is ready or failed
READERS = (b"app.data.inspect", b"app.model_files.inspect")
OF_THIS_MACHINE = (b"root:x:0:0", b"root:*:0:0")  # of /etc/passwd, which many a file names


def run(seed: int, count: int, connect: Connect, pid: int) -> dict[str, Any]:
    """Uploads `count` hostile files, each kind in turn, to the API whose process is `pid`.

    Returns:
        The figures; `violations` holds what should not have happened, with the number that makes the file again:
        `hostile(seed, number, lair)`.
    """
    violations: list[str] = []
    statuses: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory(prefix="bq-", dir="/tmp") as folder:
        # Open to all: no permission may be what keeps a trap from closing.
        Path(folder).chmod(0o777)
        secret = Path(folder, "secret")
        lair = Lair(Path(folder, "canary"), secret, f"foreign-{random.Random(seed).random()}", count >= LARGE_FROM)
        secret.write_text(f"{lair.word},1\n")
        secret.chmod(0o644)

        def one(number: int) -> None:
            name, file = hostile(seed, number, lair)
            began = time.monotonic()
            request = _request(name, file)
            answer = send(connect, request)
            slowest.append((round(time.monotonic() - began, 1), f"{number} {name}"))
            statuses["none" if answer is None else str(answer.status)] += 1
            violations.extend(f"file {number} ({name}): {fault}" for fault in _faults(connect, request, answer, lair))

        with Watch(pid) as watch, ThreadPoolExecutor(LINES) as lines:
            list(lines.map(one, range(count)))
        code_run = lair.canary.exists() or hostile_models.CANARY.exists()
        if code_run:
            violations.append("code of a file has run")
    left = _left()
    if left:
        violations.append(f"left behind: {left}")
    violations += watch.faults()
    return {
        "files": count,
        "kinds": len(KINDS),
        "statuses": dict(sorted(statuses.items())),
        "server_errors": sum(number for status, number in statuses.items() if status.startswith("5")),
        "code_run": code_run,
        "readers_seen": len(watch.readers),
        "reader_cpu_seconds": round(watch.cpu_seconds, 1),
        "reader_resident_mib": watch.resident >> 20,
        "api_growth_mib": round(watch.growth / 2**20, 1),
        "slowest": sorted(slowest, reverse=True)[:5],
        "violations": violations,
    }


def _left() -> list[str]:
    """What lies in the store's temporary folder, a moment after the last answer."""
    until = time.monotonic() + 5
    while left := sorted(path.name for path in (settings().store / "tmp").glob("*")):
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    return left


def hostile(seed: int, number: int, lair: Lair) -> tuple[str, Hostile]:
    """The file of that number, and its kind's name."""
    make = KINDS[number % len(KINDS)]
    module = make.__module__.rpartition("_")[2]
    return f"{module} {make.__name__}", make(random.Random(f"{seed} {number}"), lair)


class Watch:
    """Looks at the API's process and its children, the readers of uploads, a hundred times a second."""

    def __init__(self, pid: int) -> None:
        self.pid, self.readers = pid, set[int]()
        self.cpu_seconds, self.resident = 0.0, 0
        self.limits: dict[int, dict[str, str]] = {}
        self._first = self._most = _resident(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self._most - self._first

    def faults(self) -> list[str]:
        found = []
        if self.cpu_seconds > MOST_CPU_SECONDS:
            found.append(f"a reader took {self.cpu_seconds:.0f} s of the processor")
        if self.growth > MOST_GROWTH_MIB << 20:
            found.append(f"the API grew by {self.growth >> 20} MiB")
        if not Path(f"/proc/{self.pid}").exists():
            found.append("the API has ended")
        # The wall around its memory is the last that a reader puts up.
        confined = [limits for limits in self.limits.values() if limits["Max address space"] != "unlimited"]
        for limits in confined:
            standing = [
                limits[name] for name in ("Max cpu time", "Max file size", "Max core file size", "Max processes")
            ]
            if "unlimited" in standing or standing[-2:] != ["0", "0"]:
                found.append(f"a reader within limits of {limits}")
        if not confined:
            found.append("no reader was seen within its walls")
        return found

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self._most = max(self._most, _resident(self.pid))
            for pid in _children(self.pid):
                try:
                    if not any(reader in Path(f"/proc/{pid}/cmdline").read_bytes() for reader in READERS):
                        continue
                    self.readers.add(pid)
                    self.limits[pid] = _limits(pid)
                    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    ticks = int(words[11]) + int(words[12])
                    self.cpu_seconds = max(self.cpu_seconds, ticks / os.sysconf("SC_CLK_TCK"))
                    self.resident = max(self.resident, _resident(pid))
                except (OSError, ValueError, IndexError):
                    continue  # it has ended meanwhile


def _children(pid: int) -> list[int]:
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in listed.read_text().split()]
        except OSError:
            continue
    return found


def _limits(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:47].strip() for line in lines}


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _request(name: str, file: Hostile) -> Request:
    fields = {"format": file.format, "targets": file.targets, "skip_broken": "true" if file.skip_broken else None}
    parts = [
        f'--frontier\r\ncontent-disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
        if value is not None
    ]
    escaped = file.filename.replace('"', "%22")
    parts.append(f'--frontier\r\ncontent-disposition: form-data; name="file"; filename="{escaped}"\r\n\r\n'.encode())
    body = b"".join([*parts, file.content, b"\r\n--frontier--\r\n"])
    head = f"POST {file.path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += f"content-type: multipart/form-data; boundary=frontier\r\ncontent-length: {len(body)}\r\n\r\n"
    return Request(name, head.encode() + body, harmless=file.harmless)


def _faults(connect: Connect, request: Request, answer: Answer | None, lair: Lair) -> list[str]:
    """What is wrong with the answer; a data set that was made is looked at and deleted again."""
    # 202 is no verdict yet: what such a file comes to is looked at when it is settled.
    fault = None if answer and answer.status == 202 else fault_in(request, answer)
    found = [fault] if fault else []
    if answer is None:
        return found
    found += _foreign(answer, lair)
    if answer.status in (200, 201, 202):
        if request.raw.startswith(b"POST /v1/models "):
            return [*found, "a model of this sort was taken"]
        dataset = json.loads(answer.body)["id"]
        about = _settled(connect, dataset)
        found += _foreign(about, lair)
        if about is None or about.status != 200 or json.loads(about.body)["state"] == "preparing":
            found.append("it was being prepared and is not over")
        elif json.loads(about.body)["state"] == "ready":
            found += [f"taken with {answer.status}, and ready"] if answer.status == 202 and not request.harmless else []
            rows = send(connect, _plain(f"GET /v1/datasets/{dataset}/preview?rows=100"))
            found += ["what was taken cannot be shown"] if rows is None or rows.status != 200 else _foreign(rows, lair)
        send(connect, _plain(f"DELETE /v1/datasets/{dataset}"))
    return found


def _settled(connect: Connect, dataset: str) -> Answer | None:
    """The data set, as soon as it is prepared no more."""
    until = time.monotonic() + LONGEST_SECONDS
    while (about := send(connect, _plain(f"GET /v1/datasets/{dataset}"))) and about.status == 200:
        if json.loads(about.body)["state"] != "preparing" or time.monotonic() > until:
            break
        time.sleep(0.5)
    return about


def _foreign(answer: Answer | None, lair: Lair) -> list[str]:
    words = (lair.word.encode(), *OF_THIS_MACHINE)
    return ["a foreign file was read"] if answer and any(word in answer.body for word in words) else []


def _plain(line: str) -> Request:
    return Request("", f"{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode(), harmless=True)
