"""93,322 parameters teach 2,258: with 100 labels, with unlabelled pictures, without any label more than the student's, with noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.data.splits import limit, split
from app.spec.data import SplitSpec
from benchmarks.experiments.jobs import SPLIT, Bench, Job, examined, load, relabelled, shortened, told
from benchmarks.experiments.transfer import UNTRAINED
from worker.training.scores.verdict import judge

COST, PIECES = 530.0, 19
LONG = 1500
"""Steps of a patient student and of its control; the others have 300, as everywhere on this page."""


def measure(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {}
    teacher: dict[str, Any] = {}
    for name, words in settings(bench).items():
        if bench.quick and name not in ("1000", "100", "100_unlabelled"):
            continue
        own = "untrained" not in name
        job = bench.run(f"distillation-{name}", body(bench, words), teacher if own else None)
        teacher = job.kept("teacher") if own else teacher
        found[name] = told(job)
    found["same_labels"] = same_labels(bench, 300)
    if not bench.quick:
        found["same_labels_long"] = same_labels(bench, LONG)
    return found


def settings(bench: Bench) -> dict[str, dict[str, Any]]:
    poor, free, longer = (
        {"limit_train_examples": 100},
        {"unlabelled": "digits"},
        {"training": {"steps": bench.steps(LONG)}},
    )
    untrained = {"teacher": {"train": {"dataset": "digits", "architecture": "cnn", "training": UNTRAINED}}}
    return {
        "1000": {"limit_train_examples": 1000},
        "1000_long": {"limit_train_examples": 1000, **longer},
        "1000_even": {
            "limit_train_examples": 1000,
            "label_weight": 0.5,
            "objectives": [{"type": "logits", "temperature": 4, "weight": 0.5}],
        },
        "100": poor,
        "100_long": {**poor, **longer},
        "100_unlabelled": {**poor, **free},
        "100_unlabelled_long": {**poor, **free, **longer},
        "100_untrained": {**poor, **untrained},
        "100_unlabelled_untrained": {**poor, **free, **untrained},
    }


def body(bench: Bench, words: dict[str, Any]) -> dict[str, Any]:
    training = {"steps": bench.steps(300)}
    teacher = {"dataset": "digits", "architecture": "cnn", "limit_train_examples": 1000, "training": training}
    return {
        "kind": "distillation",
        "dataset": "digits",
        "teacher": {"train": teacher},
        "student": "cnn-small",
        "training": training,
        **words,
    }


def same_labels(bench: Bench, steps: int) -> dict[str, Any]:
    """The fair row: the teacher has no label that the student lacks, both have the unlabelled pictures' absence of labels.

    A job trains its teacher once, and the labels that a data set lacks it lacks for every seed. So each seed is a job of its own,
    on a data set of its own with 100 labels, and the pairs are judged together: here the interval covers the teacher as well.
    """
    table = load("digits")
    spec = SplitSpec.model_validate(SPLIT)
    divided = split(table, spec, ["digit"])
    pairs: dict[str, list[Any]] = {"treated": [], "control": []}
    teachers = []
    for seed in range(bench.seeds):
        codes = table.columns["digit"].copy()
        known = limit(table, divided.train, 100, "digit", seed)
        codes[np.setdiff1d(divided.train, known)] = -1
        data = bench.add(f"digits_100_{seed}", placed(relabelled(table, "digit", codes), divided))
        training = {"steps": bench.steps(300), "seed": seed}
        length = "" if steps == 300 else f"{steps}-"
        job = bench.run(
            f"distillation-same-labels-{length}{seed}",
            {
                "kind": "distillation",
                "dataset": data,
                "target": "digit",
                "split": {"by": "column", "column": "part", "train": 0.6, "validation": 0.0, "test": 0.4},
                "teacher": {"train": {"dataset": data, "target": "digit", "architecture": "cnn", "training": training}},
                "unlabelled": data,
                "student": "cnn-small",
                "training": {**training, "steps": bench.steps(steps)},
                "control": {"seeds": 1},
            },
        )
        teachers.append(job.report["distillation"]["teacher_value"]["value"])
        for arm in pairs:
            pairs[arm] += one_outcome(job, arm)
    verdict = judge(pairs["treated"], pairs["control"], seeds=bench.seeds, arm="same cnn-small on labels alone")
    return {
        "sentence": verdict["sentence"],
        "decision": verdict["decision"],
        "on": verdict["on"],
        "tasks": {name: shortened(one) for name, one in verdict["tasks"].items()},
        "teachers": teachers,
    }


def placed(table: Any, divided: Any) -> Any:
    """`table` with a column that says which part of the split each row is in: the same test rows for every data set."""
    from dataclasses import replace

    from app.data.table import describe

    part = np.zeros(len(table), np.int32)
    part[divided.test] = 1
    columns = {**table.columns, "part": part}
    described = {**table.schema.columns, "part": describe("part", part, ["train", "test"])}
    return replace(table, columns=columns, schema=table.schema.model_copy(update={"columns": described}))


def one_outcome(job: Job, arm: str) -> list[Any]:
    """The job's only seed, its test rows named alike for every data set."""
    from dataclasses import replace

    again = job.again()
    (data,) = examined(again.run, job)
    same = replace(data, ref="digits")
    return job.outcomes(again, [same], arm)
