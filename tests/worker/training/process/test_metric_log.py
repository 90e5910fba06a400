"""Metrics that survive an attempt, and progress that adds up over all stages."""

from __future__ import annotations

import errno
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import pytest

from worker.reports import Metrics, Progress, Resumed
from worker.training.process.metric_log import COPIES, MetricLog, ProgressTracker


class Told:
    def __init__(self) -> None:
        self.reports: list[Any] = []

    def send(self, report: Any) -> None:
        self.reports.append(report)


def test_names_carry_the_stage_and_a_value_that_is_not_finite_is_null(tmp_path: Path) -> None:
    told = Told()
    metric_log = MetricLog(told, tmp_path)
    metric_log.record("target", 3, {"loss": 1.5, "val_accuracy": math.nan})
    metric_log.record("control/0", 4, {"loss": 2.0})
    assert told.reports == [
        Metrics(step=3, values={"loss": 1.5, "val_accuracy": None}),
        Metrics(step=4, values={"control/0/loss": 2.0}),
    ]


def test_a_later_attempt_has_the_rows_up_to_where_it_resumed(tmp_path: Path) -> None:
    told = Told()
    first = MetricLog(told, tmp_path)
    first.record("source", 9, {"loss": 0.1})
    for step in (1, 2, 3):
        first.record("target", step, {"loss": step / 3})
    first.record("control/0", 1, {"loss": math.nan})
    first.save()
    second = MetricLog(told, tmp_path)
    second.resume("target", 2)
    second.record("target", 3, {"loss": 30.0})
    text = second.write(tmp_path / "out.csv").read_text().splitlines()
    target = [f"loss,1,{1 / 3!r}", f"loss,2,{2 / 3!r}", "loss,3,30.0"]
    assert text == ["name,step,value", "source/loss,9,0.1", *target, "control/0/loss,1,"]
    assert Resumed(stage="target", step=2, metric_prefix="") in told.reports


@pytest.mark.parametrize("spoilt", COPIES)
def test_one_spoilt_copy_costs_no_row_and_two_no_job(spoilt: str, tmp_path: Path) -> None:
    first = MetricLog(Told(), tmp_path)
    first.record("source", 9, {"loss": 0.1})
    first.save()
    data = (tmp_path / spoilt).read_bytes()
    (tmp_path / spoilt).write_bytes(data[:-2] + b"9\n")
    assert MetricLog(Told(), tmp_path).series() == {"source/loss": [(9, 0.1)]}
    for name in COPIES:
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    assert MetricLog(Told(), tmp_path).series() == {}


def test_a_save_adds_what_came_since_the_last_one(tmp_path: Path) -> None:
    """So what a job writes grows as its rows do, and not as their square."""
    metric_log = MetricLog(Told(), tmp_path)
    copies = [tmp_path / name for name in COPIES]
    files, sizes, old = set(), [], [b"", b""]
    for step in range(1000, 1040):
        metric_log.record("target", step, {"loss": 1.5, "val_loss": 2.5})
        metric_log.save()
        new = [path.read_bytes() for path in copies]
        assert all(after.startswith(before) for before, after in zip(old, new, strict=True))
        files |= {path.stat().st_ino for path in copies}
        sizes.append(sum(map(len, new)) - sum(map(len, old)))
        old = new
    assert len(files) == 2  # never replaced, so what was written is what there is
    assert len(set(sizes[1:])) == 1
    assert MetricLog(Told(), tmp_path).series() == metric_log.series()
    metric_log.save()
    assert [path.read_bytes() for path in copies] == old


def test_whatever_a_kill_leaves_of_the_last_save_the_one_before_it_is_whole(tmp_path: Path) -> None:
    metric_log = MetricLog(Told(), tmp_path)
    for step in (1, 2):
        metric_log.record("source", step, {"loss": 0.1 * step})
        metric_log.save()
    before, copies = metric_log.series(), [tmp_path / name for name in COPIES]
    whole = copies[0].read_bytes()
    metric_log.record("target", 1, {"loss": 0.3, "val_loss": 0.4})
    metric_log.save()
    after = copies[0].read_bytes()
    for length in range(len(whole), len(after) + 1):
        copies[0].write_bytes(after[:length])
        copies[1].write_bytes(whole)  # the second copy comes when the first is on the disk
        later = MetricLog(Told(), tmp_path)
        assert later.series() == (metric_log.series() if length == len(after) else before)
        later.record("target", 9, {"loss": 0.9})
        later.save()
        assert MetricLog(Told(), tmp_path).series() == later.series()


def test_a_part_that_is_missing_cuts_off_all_that_follow(tmp_path: Path) -> None:
    """Each part has been hashed with the one before."""
    metric_log = MetricLog(Told(), tmp_path)
    ends = [0]
    for step in (1, 2, 3):
        metric_log.record("target", step, {"loss": 0.5})
        metric_log.save()
        ends.append((tmp_path / COPIES[0]).stat().st_size)
    data = (tmp_path / COPIES[0]).read_bytes()
    for name in COPIES:
        (tmp_path / name).write_bytes(data[: ends[1]] + data[ends[2] :])
    assert MetricLog(Told(), tmp_path).series() == {"loss": [(1, 0.5)]}


def test_an_attempt_begins_files_of_its_own(tmp_path: Path) -> None:
    """The trainer of an earlier attempt may have one open yet."""
    first = MetricLog(Told(), tmp_path)
    first.record("target", 1, {"loss": 0.5})
    first.save()
    second = MetricLog(Told(), tmp_path)
    with (tmp_path / COPIES[0]).open("ab") as old:
        second.record("target", 2, {"loss": 0.25})
        second.save()
        old.write(b"x" * 100)
    second.record("target", 3, {"loss": 0.125})
    second.save()
    (tmp_path / COPIES[1]).unlink()
    assert MetricLog(Told(), tmp_path).series() == second.series()


def test_rows_that_are_taken_back_after_a_save_do_not_come_back(tmp_path: Path) -> None:
    metric_log = MetricLog(Told(), tmp_path)
    for step in (1, 2, 3):
        metric_log.record("target", step, {"loss": float(step)})
    metric_log.save()
    metric_log.resume("target", 1)
    metric_log.record("target", 2, {"loss": 20.0})
    metric_log.save()
    assert MetricLog(Told(), tmp_path).series() == {"loss": [(1, 1.0), (2, 20.0)]}


def test_after_a_save_that_failed_the_next_one_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric_log = MetricLog(Told(), tmp_path)
    metric_log.record("target", 1, {"loss": 1.0})
    metric_log.save()
    for step in (2, 3):
        metric_log.record("target", step, {"loss": float(step)})
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            with pytest.raises(OSError, match="full"):
                metric_log.save()
        assert MetricLog(Told(), tmp_path).series()["loss"][0] == (1, 1.0)
    metric_log.save()
    (tmp_path / COPIES[0]).unlink()
    assert MetricLog(Told(), tmp_path).series() == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_a_log_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """It was one part, written anew each time: a running job outlives an upgrade."""
    data = b"name,step,value\nsource/loss,9,0.1\nloss,1,\n"
    for name in COPIES:
        (tmp_path / name).write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
    assert MetricLog(Told(), tmp_path).series() == {"source/loss": [(9, 0.1)], "loss": [(1, None)]}


def test_progress_comes_at_most_once_a_second_and_adds_up_over_all_stages() -> None:
    now = 0.0
    told = Told()
    progress = ProgressTracker(told, lambda: now)
    progress.plan([("source", 100), ("target", 300)])
    for stage, steps in (("source", 100), ("target", 300)):
        progress.enter(stage)
        for step in range(1, steps + 1):
            now += 0.1
            progress.step(stage, step, 10, 64, {"loss": 1.0})
        progress.finish(stage, steps)
    sent = [report for report in told.reports if isinstance(report, Progress)]
    assert 40 <= len(sent) <= 43  # forty seconds, and the first step of each stage
    fractions = [report.fraction for report in sent]
    assert fractions == sorted(fractions)
    middle = next(report for report in sent if report.stage == "target" and report.step >= 100)
    assert abs(middle.fraction - (100 + middle.step) / 400) < 1e-9
    assert abs(middle.eta_seconds - 0.1 * (300 - middle.step)) < 2
    assert (middle.epochs, middle.epoch) == (30, -(-middle.step // 10))


def test_early_stopping_takes_the_unspent_steps_out_of_the_plan() -> None:
    told = Told()
    progress = ProgressTracker(told, lambda: 0.0)
    progress.plan([("target", 1000), ("control/0", 100)])
    progress.step("target", 1, 10, 1, {})
    progress.finish("target", 100)
    progress.step("control/0", 50, 10, 1, {})
    assert told.reports[-1].fraction == 150 / 200


def test_an_arm_that_is_given_up_takes_all_its_undone_steps_out_of_the_plan() -> None:
    told = Told()
    progress = ProgressTracker(told, lambda: 0.0)
    progress.plan(
        [
            ("target", 100),
            ("control/0/a", 100),
            ("control/0/b", 100),
            ("generation/1/1", 50),
            ("treated/1", 50),
            ("control/1/a", 100),
        ]
    )
    progress.step("target", 1, 10, 1, {})
    progress.finish("target", 100)
    progress.step("control/0/a", 20, 10, 1, {})
    progress.give_up("control/0")
    progress.step("generation/1/1", 30, 10, 1, {})
    assert told.reports[-1].fraction == 150 / 320
    progress.give_up("treated/1")
    progress.step("control/1/a", 100, 10, 1, {})
    assert told.reports[-1].fraction == 1
