"""What a scenario measured, and the table of it."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults import checker
from tests.faults.rig import ORPHAN_SECONDS, Rig


@dataclass
class Figures:
    """One scenario's. Times are in seconds, from the fault (or, where a server was away, from its return, as the scenario says) until
    the job was queued again, and until its next attempt began, for which it waits out a delay and its turn.

    `may_fail` are the codes of failures that the scenario asks for; a job that fails otherwise must have spent its attempts.
    `began` and `seconds` tell when it was played, by `time.monotonic()`. `late` are those of the violations that a slow machine may be
    the cause of; a row that is missing, doubled or wrong is none.
    """

    scenario: str
    seed: int
    jobs: int = 0
    faults: int = 0
    lost: int = 0
    doubled: int = 0
    stale_refused: int = 0
    stale_accepted: int = 0
    requeued: list[float] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    may_fail: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0
    seconds: float = 0.0

    def judged(self, rig: Rig, cancel_seconds: float | None = None) -> Figures:
        """Stops the workers, reads everything, and adds what the checker found."""
        rig.stop_workers()
        time.sleep(rig.patience * ORPHAN_SECONDS)
        orphans = sorted(rig.record.orphans | set(rig.orphans()))
        requeued, begun = rig.taken_up_again()
        self.requeued += requeued
        self.recovery += begun
        said = rig.said_by_workers("write_refused", "attempt_ended")
        endings = [line for line in said if line["event"] == "attempt_ended"]
        with rig.connection() as connection:
            scene = checker.Scene(
                connection,
                rig.data / "store",
                list(rig.record.submitted),
                rig.record.cancels,
                rig.record.cancels_asked,
                self.may_fail,
                endings,
                rig.record.faulty,
                orphans,
                cancel_seconds or 5 * rig.patience + rig.timing.grace,
            )
            found = checker.check(scene)
            self.jobs += len(scene.jobs)
        self.notes |= _ends(scene) | _cancelled_after(scene)
        self.notes["answers"] = dict(sorted(rig.record.answers.items(), key=str))
        by_invariant = Counter(violation.invariant for violation in found)
        self.lost += by_invariant["I1"]
        self.doubled += by_invariant["I2"]
        self.stale_accepted += by_invariant["I3"]
        self.stale_refused += len(said) - len(endings)
        self.faults += rig.record.faults.total()
        self.notes |= dict(sorted(rig.record.faults.items()))
        for violation in found:
            self.expect(False, str(violation), late=violation.is_late)
        return self

    def expect(self, holds: bool, otherwise: str, *, late: bool = False) -> None:
        """A promise of this scenario alone. `late`: a slow machine may be why it does not hold."""
        if not holds:
            self.violations.append(otherwise)
            self.late += [otherwise] if late else []

    def plain(self) -> dict[str, Any]:
        times = {"requeued": summary(self.requeued), "recovery": summary(self.recovery)}
        return {**asdict(self), "may_fail": sorted(self.may_fail), **times}


def summary(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest; nothing of nothing."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "p50": round(statistics.median(ordered), 3),
        "p99": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3),
        "max": round(ordered[-1], 3),
    }


def _ends(scene: checker.Scene) -> dict[str, dict[str, int]]:
    """How the jobs have ended, and why they failed."""
    found = Counter(f"failed: {job['reason']}" if job["state"] == "failed" else str(job["state"]) for job in scene.jobs)
    return {"ends": dict(sorted(found.items()))}


def _cancelled_after(scene: checker.Scene) -> dict[str, dict[str, float]]:
    """By the state that the answer to a cancel named: the seconds from the request until the job had ended."""
    ended = {job["id"]: job["finished"] for job in scene.jobs if job["finished"] is not None}
    seconds: dict[str, list[float]] = defaultdict(list)
    for cancel in scene.cancels:
        if cancel.job_id in ended:
            name = f"cancel to end, s, answered {cancel.state}"
            seconds[name].append(max(0.0, float(ended[cancel.job_id]) - cancel.asked))
    return {name: summary(values) for name, values in sorted(seconds.items())}


def table(rows: Sequence[Figures]) -> str:
    """For a terminal and for a page."""
    head = (
        "scenario",
        "jobs",
        "faults",
        "lost",
        "doubled",
        "stale refused",
        "accepted",
        "queued again p50 / max s",
        "at work again p50 / max s",
        "seconds",
        "",
    )
    lines = [head, tuple("-" * max(3, len(word)) for word in head)]
    for row in [*rows, _total(rows)] if len(rows) > 1 else rows:
        times = [summary(seconds) for seconds in (row.requeued, row.recovery)]
        shown = [f"{one['p50']:.1f} / {one['max']:.1f}" if one else "" for one in times]
        counts = (row.jobs, row.faults, row.lost, row.doubled, row.stale_refused, row.stale_accepted)
        verdict = f"{len(row.violations)} violations" if row.violations else row.notes.get("SKIPPED") or "holds"
        lines.append((row.scenario, *map(str, counts), *shown, f"{row.seconds:.0f}", verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "| " + " | ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _total(rows: Sequence[Figures]) -> Figures:
    total = Figures("total", rows[0].seed)
    for row in rows:
        for name in ("jobs", "faults", "lost", "doubled", "stale_refused", "stale_accepted", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
        total.violations += row.violations
    return total
