"""What an attempt may take: time, main memory, disk, metric rows; and that it must move."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.settings import settings
from app.spec.failures import FAILURES
from worker import machine, reports

_MEMORY_EVERY = 0.5
_DISK_EVERY = 2.0
_SHORT_GRACE = 5.0


@dataclass(frozen=True)
class Exceeded:
    """Which limit was broken, as a failure's code, with the figures; and how many seconds the trainer still has to save its work."""

    code: str
    message: str
    grace: float


class Limits:
    """The limits of one attempt, from now on. `metric_rows` are those that earlier attempts have recorded."""

    def __init__(self, max_seconds: float, folder: Path, metric_rows: int = 0):
        self._max_seconds, self._folder, self._rows = max_seconds, folder, metric_rows
        self._began = self._moved = time.monotonic()
        self._memory_due = self._disk_due = self._began
        self._marks: dict[str, float] = {}
        self._first = True  # no step of the stage has come yet

    def update(self, arrived: Sequence[Any]) -> None:
        """Notes the trainer's reports. Only a step, a stage or a file that is new is progress."""
        for report in arrived:
            if isinstance(report, reports.Metrics):
                self._rows += len(report.values)
            key, number = _mark(report)
            if key and number > self._marks.get(key, -1):
                self._marks[key] = number
                self._moved = time.monotonic()
                self._first = not isinstance(report, reports.Progress | reports.Metrics)

    def reset_stall_clock(self) -> None:
        """The trainer is not listened to for the moment, so it is not to blame for its silence."""
        self._moved = time.monotonic()

    def exceeded(self, pid: int) -> Exceeded | None:
        """The first limit that the trainer with this process id has broken."""
        return self._time() or self._movement() or self._metrics() or self._memory(pid) or self._disk()

    def _time(self) -> Exceeded | None:
        if time.monotonic() - self._began <= self._max_seconds:
            return None
        title = FAILURES["time_limit"].title
        return Exceeded("time_limit", f"{title}, {self._max_seconds:g}", settings().grace_seconds)

    def _movement(self) -> Exceeded | None:
        allowed = settings().stall_seconds * (
            2 if self._first else 1
        )  # a first step compiles, and may wait for a cache
        if time.monotonic() - self._moved <= allowed:
            return None
        return Exceeded("stalled", f"No step was made for {allowed:g} seconds", _SHORT_GRACE)

    def _metrics(self) -> Exceeded | None:
        most = settings().max_metric_rows
        return (
            Exceeded("metric_limit", f"{self._rows} metric rows, {most} are allowed", 0) if self._rows > most else None
        )

    def _memory(self, pid: int) -> Exceeded | None:
        if time.monotonic() < self._memory_due:
            return None
        self._memory_due = time.monotonic() + _MEMORY_EVERY
        used, most = machine.resident_bytes(machine.process_tree(pid)), machine.memory_allowed()
        return Exceeded("memory_limit", f"The trainer filled {_amounts(used, most)}", 0) if used > most else None

    def _disk(self) -> Exceeded | None:
        if time.monotonic() < self._disk_due:
            return None
        self._disk_due = time.monotonic() + _DISK_EVERY
        used, most = machine.folder_bytes(self._folder), settings().max_job_bytes
        return Exceeded("disk_limit", f"The job's folder took {_amounts(used, most)}", 0) if used > most else None


def _mark(report: Any) -> tuple[str, float]:
    """A report's name and number: the report is progress when the number has grown. No name where no report is."""
    match report:
        case reports.Progress():
            return f"step of {report.stage}", report.step
        case reports.Metrics():
            return f"metrics of {next(iter(report.values), '').rpartition('/')[0]}", report.step
        case reports.Stage():
            return f"stage {report.name}", 0
        case reports.Kept():
            return f"kept {report.role}", 0
        case reports.ArtifactReport():
            return f"artifact {report.name}", 0
        case reports.Result():
            return "result", 0
    return "", 0


def _amounts(used: int, most: int) -> str:
    return f"{used / 2**20:,.0f} MiB, {most / 2**20:,.0f} are allowed"
