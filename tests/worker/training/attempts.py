"""A job over several attempts in one process: killed at a seeded moment, and taken up as the service takes it up.

What a process has compiled is lent from attempt to attempt, with garbage in its numbers (lent.py). test_killed.py has attempts in
processes of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.worker.training.driven import weights_of
from worker import folders
from worker.reports import Checkpoint, Exit, Failed, Kept, Metrics, Progress, Resumed
from worker.training import trainer
from worker.training.dummy import Quiet
from worker.training.fitting import fit

TIMES = ("device_seconds", "latency", "latency_ms_per_batch", "ms_per_row", "latency_ratio", "bytes")
"""What a report says of time: the only thing in which two runs of a job may differ; and of a file's size, which follows the names
that Keras gives a backbone's inner layers by a counter of the process."""


def saved_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each epoch of a few steps is looked at and saved."""
    monkeypatch.setattr(fit, "EVALUATION_STEPS", 1)
    monkeypatch.setattr(fit, "CHECKPOINT_SHARE", 0)
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0)


class Killed(BaseException):
    """Nothing handles it, and no line comes out after it."""


class Mortal(Quiet):
    """Dies instead of sending the first report for which `at` holds, or sets `stop` with it."""

    def __init__(self, at: Callable[[Any], bool], stop: threading.Event | None = None):
        super().__init__()
        self._at, self._stop, self._dead = at, stop, False

    def send(self, report: Any) -> None:
        self._dead = self._dead or self._at(report)
        if self._dead and self._stop is None:
            raise Killed
        if self._dead:
            self._stop.set()
        super().send(report)


def number(place: int) -> Callable[[Any], bool]:
    """Holds for report `place` (from 0); progress, which comes by the clock, is not counted."""
    counter = itertools.count()
    return lambda report: not isinstance(report, Progress) and next(counter) == place


def never(report: Any) -> bool:
    return False


@dataclass
class Job:
    """`words`: an assignment's, all but where things lie. The service's side of it: what it recorded, in its order."""

    words: dict[str, Any]
    home: Path
    attempt: int = 0
    recorded: list[tuple[Any, Path]] = field(default_factory=list)

    def run(self, at: Callable[[Any], bool] = never, lost: int = 0, gently: bool = False) -> Exit | None:
        """One attempt, in a process as new; None: it was killed at a report, and of those before that the last `lost` ones had
        not been recorded when the worker was killed as well. `gently`: there it was asked to stop."""
        self.attempt += 1
        random.seed(self.attempt)
        keras.utils.set_random_seed(self.attempt)  # nothing may hang on where these stand
        out = self.home / f"out-{self.attempt}"
        names = {Path(report.path).name for report, _ in self.recorded if isinstance(report, Checkpoint)}
        places = {
            "checkpoints": str(folders.checkpoints(self.home, self.attempt, names)),
            "cache": str(self.home / "cache"),
        }
        kept = {**self.words.get("kept", {}), **self.kept}
        stop = threading.Event()
        told = Mortal(at, stop if gently else None)
        code = None
        with contextlib.suppress(Killed):
            code = trainer.run({**self.words, **places, "kept": kept}, out, told, stop)
        count = len(told.reports) if code is not None else max(0, len(told.reports) - lost)
        self.recorded += [(report, out) for report in told.reports[:count]]
        return code

    @property
    def out(self) -> Path:
        return self.home / f"out-{self.attempt}"

    def of(self, kind: type) -> list[Any]:
        return [report for report, _ in self.recorded if isinstance(report, kind)]

    @property
    def kept(self) -> dict[str, Any]:
        """What the worker would hand to a later attempt: the first of each role."""
        found: dict[str, Any] = {}
        for report, out in self.recorded:
            if isinstance(report, Kept) and report.role != "unfinished":
                found.setdefault(report.role, {
                    "path": str(out / report.model),
                    "manifest": json.loads((out / report.manifest).read_text()),
                    "rows": str(out / report.rows) if report.rows else None,
                })  # fmt: skip
        return found

    @property
    def rows(self) -> dict[tuple[str, int], float | None]:
        """The metrics as the database would have them."""
        found: dict[tuple[str, int], float | None] = {}
        for report, _ in self.recorded:
            match report:
                case Metrics():
                    new = {(name, report.step): value for name, value in report.values.items()}
                    assert not found.keys() & new.keys(), "a row came twice"
                    found |= new
                case Resumed(metric_prefix=prefix):
                    gone = [
                        (name, step)
                        for name, step in found
                        if step > report.step and name.startswith(prefix) and "/" not in name.removeprefix(prefix)
                    ]
                    for key in gone:
                        del found[key]
        return found

    @property
    def result(self) -> dict[str, Any]:
        """All that came of it, without times."""
        report = json.loads((self.out / "report.json").read_text())
        return {
            "models": {role: _sha256(weights_of(entry)) for role, entry in self.kept.items()},
            "rows behind them": {role: entry["rows"] and _sha256([np.load(entry["rows"])]) for role, entry in self.kept.items()},
            "best": {role: entry["manifest"]["training"].get("best") for role, entry in self.kept.items()},
            "metrics.csv": (self.out / "metrics.csv").read_text(),
            "rows": self.rows,
            "report": _without(report),
            "curve": (self.out / "curve.svg").read_text(),
        }  # fmt: skip


def unbroken(words: dict[str, Any], home: Path) -> Job:
    job = Job(words, home)
    assert job.run() == Exit.DONE, job.of(Failed)
    return job


def broken(straight: Job, home: Path, rng: random.Random, kills: int = 1) -> Job:
    """A job like `straight`, which was not broken: killed `kills` times before one of its reports each, or asked to stop there."""
    job, lines = Job(straight.words, home), len(told(straight))
    for _ in range(kills):
        code = job.run(number(rng.randrange(2, lines)), rng.choice([0, 0, 1, 2]), rng.random() < 0.3)
        if code == Exit.DONE:  # what was left was shorter
            return job
        assert code in (None, Exit.STOPPED), job.of(Failed)
    assert job.run() == Exit.DONE, job.of(Failed)
    return job


def told(job: Job) -> list[Any]:
    """Its reports that are counted."""
    return [report for report, _ in job.recorded if not isinstance(report, Progress)]


def differences(one: dict[str, Any], other: dict[str, Any], at: str = "") -> list[str]:
    """Where two results differ, for a person."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found for key in dict.fromkeys([*one, *other]) for found in differences(one.get(key), other.get(key), f"{at}/{key}")
        ]  # fmt: skip
    return [] if one == other else [f"{at}: {str(one)[:300]} | {str(other)[:300]}"]


def _without(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _without(value) for key, value in told.items() if key not in TIMES}
    return [_without(one) for one in told] if isinstance(told, list) else told


def _sha256(arrays: list[np.ndarray]) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()
