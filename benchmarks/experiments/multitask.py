"""One label-poor task beside rich ones: digits with parity and size, tables whose targets share all or little; and weightings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from app.data.table import Table
from benchmarks.experiments.jobs import Bench, Job, load, told

COST, PIECES = 470.0, 8
WEIGHTINGS = ("equal", "uncertainty", "pcgrad", "cagrad")
NAMES = ("main", *(f"aux_{number}" for number in range(1, 8)))


def measure(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {"digits": {}, "tables": {}}
    first: Job | None = None
    for name in WEIGHTINGS[:2] if bench.quick else WEIGHTINGS:
        job = digits(bench, name, first)
        first = first or job
        found["digits"][name] = told(job)
    bench.add("unrelated_shuffled", shuffled(load("unrelated")))
    for name, body in tables(bench).items():
        found["tables"][name] = told(bench.run(f"multitask-{name}", body))
    return found


def digits(bench: Bench, weighting: str, first: Job | None = None) -> Job:
    """50 labels of the digit, 1000 of parity and of whether it is 5 or more. The single-task controls are trained once."""
    body = {
        "kind": "multitask",
        "dataset": "digits",
        "tasks": {
            "digit": {"limit_train_labels": 50},
            "odd": {"limit_train_labels": 1000},
            "at_least_5": {"limit_train_labels": 1000},
        },
        "weighting": weighting,
        "training": {"steps": bench.steps(300)},
        "control": {"primary": "digit"},
    }
    return bench.run(f"multitask-digits-{weighting}", body, first.kept("control") if first else None)


def tables(bench: Bench) -> dict[str, dict[str, Any]]:
    poor: dict[str, Any] = {
        "main": {"limit_train_labels": 30},
        **{name: {"limit_train_labels": 1000} for name in NAMES[1:]},
    }
    split = {"train": 0.6, "validation": 0.1, "test": 0.3}
    common = {"kind": "multitask", "split": split, "training": {"steps": bench.steps(300)}}
    few = {"tasks": {name: {} for name in NAMES}, "limit_train_examples": 100, "control": {"primary": "delta_m"}}
    one = {"tasks": poor, "control": {"primary": "main"}}
    return {
        "lowrank-poor": {**common, "dataset": "lowrank", **one},
        "unrelated-poor": {**common, "dataset": "unrelated", **one},
        "shuffled-poor": {**common, "dataset": "unrelated_shuffled", **one},
        "unrelated-100": {**common, "dataset": "unrelated", **few},
    }


def shuffled(table: Table) -> Table:
    """The same main target; each of the other targets in another order of rows, so that it has nothing to do with the inputs."""
    rng = np.random.default_rng(0)
    others = {name: rng.permutation(values) for name, values in table.columns.items() if name != "main"}
    return replace(table, columns={**table.columns, **others})
