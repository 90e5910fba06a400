"""Metrics and progress of a whole job: what is sent, how often, and when it will be done."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from worker.reports import Metrics, Progress, Resumed, Stage
from worker.training.channel import Channel


def prefix_of(stage: str) -> str:
    """What a stage's metric names begin with: nothing for the target."""
    return "" if stage == "target" else f"{stage}/"


class Ledger:
    """Every metric of the job, sent as it comes and written to `metrics.csv`.

    It is saved with each checkpoint, so that a later attempt's file has the earlier one's rows up to where it resumed.
    """

    def __init__(self, channel: Channel, home: Path):
        self._channel, self._path = channel, home / "metrics.csv"
        self._rows: list[tuple[str, int, float | None]] = []
        if self._path.exists():
            with self._path.open(newline="") as file:
                self._rows = [
                    (name, int(step), float(value) if value else None)
                    for name, step, value in list(csv.reader(file))[1:]
                ]

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        named = {prefix_of(stage) + name: value if math.isfinite(value) else None for name, value in values.items()}
        self._rows += [(name, step, value) for name, value in named.items()]
        self._channel.send(Metrics(step=step, values=named))

    def resume(self, stage: str, step: int) -> None:
        """The stage goes on from `step`; what an earlier attempt recorded beyond it no longer counts."""
        prefix = prefix_of(stage)
        self._rows = [row for row in self._rows if row[1] <= step or not _of(row[0], prefix)]
        self._channel.send(Resumed(stage=stage, step=step, metric_prefix=prefix))

    def series(self) -> dict[str, list[tuple[int, float | None]]]:
        """{name: (step, value) …}, names in the order in which they first came."""
        found: dict[str, list[tuple[int, float | None]]] = {}
        for name, step, value in self._rows:
            found.setdefault(name, []).append((step, value))
        return found

    def save(self, path: Path | None = None) -> Path:
        path = path or self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "step", "value"])
        writer.writerows((name, step, "" if value is None else repr(value)) for name, step, value in self._rows)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(text.getvalue())
        beside.rename(path)
        return path


class Pace:
    """Where the job stands among all its stages' steps. Sends progress at most once a second, and at each stage's first and last step."""

    def __init__(self, channel: Channel, clock: Callable[[], float] = time.monotonic):
        self._channel, self._clock = channel, clock
        self._stages: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._marks: list[tuple[float, int]] = []
        self._sent = -math.inf
        self._entered = ""

    def plan(self, stages: Sequence[tuple[str, int]]) -> None:
        """All stages of the job in their order, with the optimizer steps of each."""
        self._stages = {**dict(stages), "evaluate": 0}

    def enter(self, stage: str) -> None:
        self._stages.setdefault(stage, 0)
        self._entered = stage
        self._channel.send(Stage(name=stage, index=list(self._stages).index(stage), of=len(self._stages)))

    def skip(self, stage: str) -> None:
        """An earlier attempt finished it."""
        self._done[stage] = self._stages.get(stage, 0)
        self._marks = []

    def step(self, stage: str, step: int, epoch_steps: int, batch: int, latest: Mapping[str, float]) -> None:
        """`step` optimizer steps of the stage are done."""
        first, steps = stage not in self._done, self._stages.get(stage, 0)
        self._done[stage] = step
        now = self._clock()
        if not (first or step == steps or now - self._sent >= 1):
            return
        done, total = sum(self._done.values()), max(1, sum(self._stages.values()))
        self._marks = [*self._marks[-20:], (now, done)]
        seconds, steps_since = now - self._marks[0][0], done - self._marks[0][1]
        speed = steps_since / seconds if seconds > 0 and steps_since > 0 else None
        self._sent = now
        self._channel.send(
            Progress(
                stage=stage,
                epoch=min(-(-step // epoch_steps), -(-steps // epoch_steps)),
                epochs=-(-steps // epoch_steps),
                step=step,
                steps=steps,
                fraction=min(1.0, done / total),
                samples_per_second=None if speed is None else round(speed * batch, 1),
                eta_seconds=None if speed is None else round((total - done) / speed, 1),
                latest={
                    prefix_of(stage) + name: value if math.isfinite(value) else None for name, value in latest.items()
                },
            )
        )

    def finish(self, stage: str, step: int) -> None:
        """The stage is over, perhaps before its budget was spent: early stopping."""
        self._stages[stage] = step
        self._done[stage] = step

    def give_up(self, stage: str) -> None:
        """The arm that was to end with `stage` goes no further: up to there, what is done is all there is.

        Stages come in the order of the plan, so the arm's lie before its last one (a student's generations) or within it (STAGE/TASK).
        """
        names = list(self._stages)
        own = [place for place, name in enumerate(names) if name == stage or name.startswith(f"{stage}/")]
        for name in names[: max(own, default=-1) + 1]:
            self._stages[name] = self._done.get(name, 0)

    @property
    def stage(self) -> str:
        return self._entered


def _of(name: str, prefix: str) -> bool:
    """Whether a metric belongs to the stage with this prefix; the target's names have none, hence no slash but in `val_…` never."""
    return name.startswith(prefix) if prefix else "/" not in name
