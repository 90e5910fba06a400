"""An arm whose loss is not finite ends itself, not the job: real jobs at rates at which gradient descent runs away."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.worker.training.driven import Ended, assignment, drive, kept_by
from worker.reports import Exit, Failed, Kept, Metrics, Progress, Result, Resumed, Warned
from worker.training import trainer
from worker.training.dummy import Quiet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MLP = {"arch": "mlp", "units": [8]}
SOURCE = {"train": {"dataset": "diabetes", "architecture": MLP, "training": {"steps": 3}}}
RUNAWAY = 10.0
"""A rate of plain gradient descent at which every run of these is lost within ten steps."""

TRANSFER: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "diabetes",
    "source": SOURCE,
    "training": {"steps": 30, "optimizer": {"name": "sgd", "learning_rate": 0.01}},
    "control": {"seeds": 3, "training": {"learning_rate": RUNAWAY}},
}
KINDS: dict[str, dict[str, Any]] = {
    "transfer": TRANSFER,
    "multitask": {
        "kind": "multitask",
        "dataset": "lowrank",
        "tasks": {"main": {}, "aux_1": {}},
        "trunk": MLP,
        "training": TRANSFER["training"],
        "control": TRANSFER["control"],
    },
    "distillation": {
        "kind": "distillation",
        "dataset": "diabetes",
        "teacher": SOURCE,
        "student": MLP,
        "training": TRANSFER["training"],
        "control": TRANSFER["control"],
    },
}


def run(body: dict[str, Any], home: Path, kept: dict[str, Any] | None = None) -> Ended:
    """A job trained in this process."""
    told = Quiet()
    code = trainer.run(assignment(body, home, kept), home / "out", told, threading.Event())
    return Ended(code, told.reports, home / "out")


def report_of(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ended.out / "report.json").read_text())
    return found


@pytest.mark.parametrize("name", list(KINDS))
def test_controls_that_fail_leave_a_model_and_no_verdict(name: str, tmp_path: Path) -> None:
    ended = run(KINDS[name], tmp_path)
    assert ended.code == Exit.DONE, ended.of(Failed)
    assert isinstance(ended.reports[-1], Result)
    warnings = [line for line in ended.of(Warned) if line.code == "arm_failed"]
    assert ["the loss was" in line.message for line in warnings] == [True] * 3
    treated = {"model", "treated/1", "treated/2"}
    assert treated <= {line.role for line in ended.of(Kept)}
    assert not [line for line in ended.of(Kept) if line.role.startswith("control")]

    report = report_of(ended)
    assert (report["decision"], report["reason"]) == ("inconclusive", "run_failed")
    assert set(report["models"]) == treated
    assert set(report["failed"]) == {"control/0", "control/1", "control/2"}
    assert "seed 0: the control run failed" in report["sentence"]
    assert report["sentence"].endswith("; 1 more.")
    assert report["tasks"]
    if name == "distillation":
        assert report["distillation"]["gap_recovered"]["value"] is None
    if name == "multitask":
        assert report["verdict"]["delta_m"]["reason"] == "run_failed"
        assert report["failed"]["control/0"].startswith("control/0/main: the loss was")
    assert "| control/2 | failed: " in (ended.out / "card.md").read_text()
    ElementTree.fromstring((ended.out / "curve.svg").read_text())


UNSTEADY = {
    **TRANSFER,
    "limit_train_examples": 4,
    "training": {"steps": 60, "seed": 2, "optimizer": {"name": "sgd", "learning_rate": 0.35}},
    "control": {"seeds": 3, "training": {"learning_rate": 0.01}},
}
"""Four rows a seed: those of seed 2 stand rates up to 0.6, those of seed 3 none above 0.18."""


def test_a_treated_arm_that_fails_costs_its_pair_and_the_others_are_shown(tmp_path: Path) -> None:
    ended = run(UNSTEADY, tmp_path)
    assert ended.code == Exit.DONE, ended.of(Failed)
    report = report_of(ended)
    assert set(report["failed"]) == {"treated/1"}
    assert set(report["models"]) == {"model", "control/0", "control/1", "treated/2", "control/2"}
    assert (report["decision"], report["reason"]) == ("inconclusive", "run_failed")
    verdict = report["verdict"]["tasks"]["progression"]
    assert verdict["seeds"] == [2, 4]
    assert len(verdict["delta"]["values"]) == 2
    assert "points; not every pair was completed: seed 3: the treated run failed (the loss was" in report["sentence"]
    assert "control" in (ended.out / "curve.svg").read_text()
    fractions = [line.fraction for line in ended.of(Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_the_job_s_own_model_has_to_come_about(tmp_path: Path) -> None:
    lost = {**TRANSFER, "training": {"steps": 30, "optimizer": {"name": "sgd", "learning_rate": RUNAWAY}}}
    ended = run(lost, tmp_path)
    assert ended.code == Exit.FAILED
    (failed,) = ended.of(Failed)
    assert (failed.code, failed.stage) == ("loss_not_finite", "target")


def test_after_a_kill_the_arm_fails_again_at_the_same_step_and_all_ends_the_same(tmp_path: Path) -> None:
    straight = run(UNSTEADY, tmp_path / "a")

    def beyond(report: Any) -> bool:
        return isinstance(report, Metrics) and "treated/2/loss" in report.values

    killed = drive(assignment(UNSTEADY, tmp_path / "b"), tmp_path / "b" / "one", beyond, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    second = run(UNSTEADY, tmp_path / "b", kept_by(killed))
    assert second.code == Exit.DONE
    assert "treated/1" in [line.stage for line in second.of(Resumed)]
    assert "target" not in [line.stage for line in second.of(Resumed)]
    reports = [report_of(ended) for ended in (straight, second)]
    assert reports[0]["failed"] == reports[1]["failed"]
    assert reports[0]["tasks"] == reports[1]["tasks"]
    assert reports[0]["verdict"]["interval"] == reports[1]["verdict"]["interval"]
    tables = [(ended.out / "metrics.csv").read_text().splitlines() for ended in (straight, second)]
    assert sorted(tables[0]) == sorted(tables[1])
