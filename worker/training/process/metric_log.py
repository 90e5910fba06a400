"""Metrics and progress of a whole job, as they are sent and saved, and the estimate of its end."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app import durable
from worker.reports import Metrics, Progress, Resumed, Stage
from worker.training.process.channel import Channel

COPIES = ("metrics-1", "metrics-2")

Row = tuple[str, int, float | None]


def prefix_of(stage: str) -> str:
    """The prefix of a stage's metric names: empty for the target."""
    return "" if stage == "target" else f"{stage}/"


class MetricLog:
    """Every metric of the job, sent as it comes and written to `metrics.csv`, stage after stage as they began.

    `home` holds the log for a later attempt, saved before each checkpoint: `resume` drops rows beyond the checkpoint that it goes on from,
    but missing rows could not be made up. There are two copies, since no older one would do. A copy is a list of parts, one for each
    save: a line with the sha256 of the line before and the rows, then the rows as CSV.
    """

    def __init__(self, channel: Channel, home: Path):
        self._channel, self._home = channel, home
        self._stages: dict[str, list[Row]] = {}
        self._digest = ""  # of the newest part of the copies; "": they are not what this attempt has recorded
        self._unsaved: list[Row] = []
        text = max((_read(home / name) for name in COPIES), key=len)
        for name, step, value in list(csv.reader(io.StringIO(text)))[1:]:
            self._of(name.rpartition("/")[0] or "target").append((name, int(step), float(value) if value else None))

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        named = {prefix_of(stage) + name: value if math.isfinite(value) else None for name, value in values.items()}
        came = [(name, step, value) for name, value in named.items()]
        self._of(stage).extend(came)
        self._unsaved.extend(came)
        self._channel.send(Metrics(step=step, values=named))

    def resume(self, stage: str, step: int) -> None:
        """The stage goes on from `step`; what an earlier attempt recorded beyond it no longer counts."""
        before = self._of(stage)
        self._stages[stage] = [row for row in before if row[1] <= step]
        if len(self._stages[stage]) < len(before):
            self._digest = ""
        self._channel.send(Resumed(stage=stage, step=step, metric_prefix=prefix_of(stage)))

    def series(self) -> dict[str, list[tuple[int, float | None]]]:
        """{name: (step, value) …}, names in the order in which they first came."""
        series: dict[str, list[tuple[int, float | None]]] = {}
        for rows in self._stages.values():
            for name, step, value in rows:
                series.setdefault(name, []).append((step, value))
        return series

    def save(self) -> None:
        """Saves durably, for a later attempt. Adds the rows since the last save; an attempt's first save begins the copies anew.

        An earlier trainer that still runs, with a copy open, thus writes to a file that nobody reads.

        Raises:
            OSError: there is no room, say; the next save begins the copies anew.
        """
        before, self._digest = self._digest, ""
        data = (_csv(self._unsaved) if before else self._whole()).encode()
        digest = _digest(before, data)
        part = f"{digest}\n".encode() + data
        self._home.mkdir(parents=True, exist_ok=True)
        for path in (self._home / name for name in COPIES):
            if not before:
                with durable.write(path) as beside:
                    beside.write_bytes(part)
            elif data:
                with path.open("ab") as file:
                    file.write(part)
                durable.sync(path)
        self._unsaved = []
        self._digest = digest if data else before

    def write(self, path: Path) -> Path:
        """As CSV, for people."""
        with durable.write(path) as beside:
            beside.write_text(self._whole())
        return path

    def _of(self, stage: str) -> list[Row]:
        return self._stages.setdefault(stage, [])

    def _whole(self) -> str:
        return "name,step,value\n" + "".join(_csv(rows) for rows in self._stages.values())


class ProgressTracker:
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
        """The arm that was to end with `stage` goes no further: its stages end where they are.

        Stages come in the order of the plan, so the arm's lie before its last one (a student's generations) or within it (STAGE/TASK).
        """
        names = list(self._stages)
        own = [place for place, name in enumerate(names) if name == stage or name.startswith(f"{stage}/")]
        for name in names[: max(own, default=-1) + 1]:
            self._stages[name] = self._done.get(name, 0)

    @property
    def stage(self) -> str:
        return self._entered


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows((name, step, "" if value is None else repr(value)) for name, step, value in rows)
    return text.getvalue()


def _read(path: Path) -> str:
    """The rows of a saved copy, up to the first part that a kill has cut off or a bad disk has spoilt."""
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    digest, rows = "", b""
    for part in re.split(rb"^(?=[0-9a-f]{64}$)", data, flags=re.MULTILINE)[1:]:
        written, _, more = part.partition(b"\n")
        digest = _digest(digest, more)
        if digest.encode() != written:
            break
        rows += more
    return rows.decode()


def _digest(before: str, data: bytes) -> str:
    return hashlib.sha256(before.encode() + data).hexdigest()
