"""Where report lines go: to the worker on the original standard output, or to a person's terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Protocol

from worker.reports import Failed, Kept, Metrics, Progress, Result, Resumed, Stage, Started, Warned, encode


class Channel(Protocol):
    def send(self, report: Any) -> None:
        """Hands one report over; it is out when this returns."""


class Lines:
    """Report lines on a file descriptor, whole lines only, whichever thread writes."""

    def __init__(self, descriptor: int):
        self._descriptor, self._lock = descriptor, threading.Lock()

    def send(self, report: Any) -> None:
        line = encode(report)
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


class Terminal:
    """Report lines as for the worker, and lines for a person on standard error: a terminal, or a job's log."""

    def __init__(self, lines: Lines, error: int = 2):
        self._lines, self._error = lines, os.fdopen(os.dup(error), "w", buffering=1)
        self._live = self._error.isatty()

    def send(self, report: Any) -> None:
        self._lines.send(report)
        with contextlib.suppress(OSError):  # a log that cannot be written ends no job
            self._show(report)

    def _show(self, report: Any) -> None:
        match report:
            case Started():
                about = ", ".join(f"{name} {value}" for name, value in report.environment.items() if value)
                self._print(f"started: {about}" if about else "started")
            case Stage():
                self._print(f"[{report.index + 1}/{report.of}] {report.name}")
            case Progress() if self._live:
                eta = "" if report.eta_seconds is None else f"  {report.eta_seconds:.0f} s left"
                self._error.write(f"\r  {100 * report.fraction:5.1f} %  step {report.step}/{report.steps}{eta}   ")
                self._error.flush()
            case Metrics() if any("val_" in name for name in report.values):
                shown = ", ".join(f"{name} {value:.4g}" for name, value in report.values.items() if value is not None)
                self._print(f"  step {report.step}: {shown}")
            case Warned():
                self._print(f"  warning: {report.message}")
            case Failed():
                self._print(f"failed ({report.code}): {report.message}. {report.hint or ''}")
            case Resumed() if report.step:
                self._print(f"  goes on from the checkpoint of step {report.step}")
            case Kept():
                self._print(f"  kept {report.model} as {report.role}")
            case Result():
                self._print("done")

    def _print(self, text: str) -> None:
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} "
        print(f"\r{text}" if self._live else when + text, file=self._error)


def standard_output() -> int:
    """A private copy of fd 1 for report lines; a library's print() then goes to standard error and cannot mix with them."""
    kept = os.dup(1)
    os.set_inheritable(kept, False)
    sys.stdout.flush()
    os.dup2(2, 1)
    return kept
