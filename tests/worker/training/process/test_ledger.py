"""Metrics that survive an attempt, and progress that adds up over all stages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from worker.reports import Metrics, Progress, Resumed
from worker.training.process.ledger import COPIES, Ledger, Pace


class Told:
    def __init__(self) -> None:
        self.reports: list[Any] = []

    def send(self, report: Any) -> None:
        self.reports.append(report)


def test_names_carry_the_stage_and_a_value_that_is_not_finite_is_null(tmp_path: Path) -> None:
    told = Told()
    ledger = Ledger(told, tmp_path)
    ledger.record("target", 3, {"loss": 1.5, "val_accuracy": math.nan})
    ledger.record("control/0", 4, {"loss": 2.0})
    assert told.reports == [
        Metrics(step=3, values={"loss": 1.5, "val_accuracy": None}),
        Metrics(step=4, values={"control/0/loss": 2.0}),
    ]


def test_a_later_attempt_has_the_rows_up_to_where_it_resumed(tmp_path: Path) -> None:
    told = Told()
    first = Ledger(told, tmp_path)
    first.record("source", 9, {"loss": 0.1})
    for step in (1, 2, 3):
        first.record("target", step, {"loss": step / 3})
    first.record("control/0", 1, {"loss": math.nan})
    first.save()
    second = Ledger(told, tmp_path)
    second.resume("target", 2)
    second.record("target", 3, {"loss": 30.0})
    text = second.write(tmp_path / "out.csv").read_text().splitlines()
    target = [f"loss,1,{1 / 3!r}", f"loss,2,{2 / 3!r}", "loss,3,30.0"]
    assert text == ["name,step,value", "source/loss,9,0.1", *target, "control/0/loss,1,"]
    assert Resumed(stage="target", step=2, metric_prefix="") in told.reports


@pytest.mark.parametrize("spoilt", COPIES)
def test_one_spoilt_copy_costs_no_row_and_two_no_job(spoilt: str, tmp_path: Path) -> None:
    first = Ledger(Told(), tmp_path)
    first.record("source", 9, {"loss": 0.1})
    first.save()
    data = (tmp_path / spoilt).read_bytes()
    (tmp_path / spoilt).write_bytes(data[:-2] + b"9\n")
    assert Ledger(Told(), tmp_path).series() == {"source/loss": [(9, 0.1)]}
    for name in COPIES:
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    assert Ledger(Told(), tmp_path).series() == {}


def test_progress_comes_at_most_once_a_second_and_adds_up_over_all_stages() -> None:
    now = 0.0
    told = Told()
    pace = Pace(told, lambda: now)
    pace.plan([("source", 100), ("target", 300)])
    for stage, steps in (("source", 100), ("target", 300)):
        pace.enter(stage)
        for step in range(1, steps + 1):
            now += 0.1
            pace.step(stage, step, 10, 64, {"loss": 1.0})
        pace.finish(stage, steps)
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
    pace = Pace(told, lambda: 0.0)
    pace.plan([("target", 1000), ("control/0", 100)])
    pace.step("target", 1, 10, 1, {})
    pace.finish("target", 100)
    pace.step("control/0", 50, 10, 1, {})
    assert told.reports[-1].fraction == 150 / 200


def test_an_arm_that_is_given_up_takes_all_its_undone_steps_out_of_the_plan() -> None:
    told = Told()
    pace = Pace(told, lambda: 0.0)
    pace.plan(
        [
            ("target", 100),
            ("control/0/a", 100),
            ("control/0/b", 100),
            ("generation/1/1", 50),
            ("treated/1", 50),
            ("control/1/a", 100),
        ]
    )
    pace.step("target", 1, 10, 1, {})
    pace.finish("target", 100)
    pace.step("control/0/a", 20, 10, 1, {})
    pace.give_up("control/0")
    pace.step("generation/1/1", 30, 10, 1, {})
    assert told.reports[-1].fraction == 150 / 320
    pace.give_up("treated/1")
    pace.step("control/1/a", 100, 10, 1, {})
    assert told.reports[-1].fraction == 1
