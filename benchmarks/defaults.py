"""Which defaults cost least on problems that they were not chosen on: `python -m benchmarks.defaults [--only NAME] [--seeds N]`.

Three numbers that a user need not give: the rate at which an inherited trunk is tuned, how hard `l2_sp` pulls, and the temperature and
weight of `logits` where teachers and student are compared by z-scores. Each value in question runs as users' jobs do, on each problem and
with the same seeds and controls. What is printed: the mean over the seeds of the test metric, each problem a line, and the mean of what a
value falls short of the best value of its line, in points. Half an hour on two busy cores; what has ended is not trained again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from app.data.table import Table, describe
from benchmarks.experiments.jobs import Bench, Clock, Job, load

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
PULLS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
SOFTENED = ((4.0, 0.9), (2.0, 0.9), (2.0, 9.0), (4.0, 9.0))
LABELS = (5, 20)
STEPS = 150


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, nargs="+", default=LABELS, help="of each class")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "bequest-defaults")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(asked.out, asked.seeds, False, asked.out, clock=Clock(0))
    digits = load("digits")
    bench.add("low_digits", part(digits, "digit", range(5)))
    bench.add("high_digits", part(digits, "digit", range(5, 10)))
    for name in asked.only:
        print(f"\n{name}: {MEASURED[name].__doc__}")
        MEASURED[name](bench, asked.labels)


def part(table: Table, column: str, wanted: range) -> Table:
    """The same rows, of which only some classes have a label."""
    codes = table.columns[column]
    kept = np.where(np.isin(codes, wanted), codes - wanted.start, -1).astype(np.int32)
    classes = [(table.schema.columns[column].classes or [])[code] for code in wanted]
    schema = table.schema.model_copy(update={"columns": {column: describe(column, kept, classes)}, "target": column})
    return replace(table, columns={column: kept}, schema=schema)


def problems() -> dict[str, dict[str, Any]]:
    """A source and what follows it; strokes to digits, on which the defaults were chosen at first, is not among them."""

    def of(
        source: str, target: str, *, on: str | None = None, after: str | None = None, steps: int = 300
    ) -> dict[str, Any]:
        train = {"dataset": source, "training": {"steps": steps}} | ({} if on is None else {"target": on})
        return {"dataset": target, "source": {"train": train}} | ({} if after is None else {"target": after})

    return {
        "digits 0-4 to 5-9": of("low_digits", "high_digits"),
        "digits to strokes": of("digits", "strokes", on="digit"),
        "topics to moods of messages": of("messages", "messages", on="topic", after="mood"),
        "patterns to heights of tones": of("tones", "tones", on="pattern", after="high"),
        "expressions to glasses of faces": of("faces", "faces", on="expression", after="glasses"),
    }


def rates(bench: Bench, few: Sequence[int]) -> None:
    """the rate of fine-tuning, Adam"""
    transfers(bench, few, RATES, lambda rate: {"training": {"steps": STEPS, "optimizer": {"learning_rate": rate}}})


def pulls(bench: Bench, few: Sequence[int]) -> None:
    """alpha of l2_sp, beta a tenth of it; 0: without it"""

    def words(pull: float) -> dict[str, Any]:
        held = {"regularizer": {"name": "l2_sp", "alpha": pull, "beta": pull / 10}} if pull else {}
        return {"training": {"steps": STEPS}, **held}

    transfers(bench, few, PULLS, words)


def transfers(
    bench: Bench, few: Sequence[int], values: Sequence[float], words: Callable[[float], dict[str, Any]]
) -> None:
    found: dict[str, list[float]] = {}
    for problem, body in problems().items():
        for labels in few:
            first: Job | None = None
            line = f"{problem}, {labels} labels a class"
            for value in values:
                asked = {"kind": "transfer", "limit_train_examples": {"per_class": labels}, **body, **words(value)}
                kept = {} if first is None else first.kept("source", "control")
                job = bench.run(f"{line}, {next(iter(words(value)))} {value:g}".replace(" ", "_"), asked, kept)
                first = first or job
                found.setdefault(f"{line} (from scratch {points(job, 'control'):.1f})", []).append(
                    points(job, "treated")
                )
    shown(found, [f"{value:g}" for value in values])


def softened(bench: Bench, few: Sequence[int]) -> None:
    """temperature and weight of `logits` under logit_standardization; the last column is plain `logits`, T = 4, weight 0.9"""
    found: dict[str, list[float]] = {}
    for dataset, target, teacher, student in (
        ("strokes", "digit", "cnn", "cnn-small"),
        ("messages", "topic", "text-cnn", "text-cnn-small"),
        ("tones", "pattern", "audio-cnn", "audio-cnn-small"),
    ):
        for labels in few:
            first: Job | None = None
            for pair in (*SOFTENED, None):
                own: dict[str, Any] = {"dataset": dataset, "target": target, "training": {"steps": 300}}
                asked = {
                    "kind": "distillation",
                    **own,
                    "teacher": {"train": {**own, "architecture": teacher}},
                    "student": student,
                    "limit_train_examples": {"per_class": labels},
                }
                if pair is not None:
                    temperature, weight = pair
                    logits = {"type": "logits", "temperature": temperature, "weight": weight}
                    asked |= {"logit_standardization": True, "objectives": [logits], "label_weight": 0.1}
                kept = {} if first is None else first.kept("teacher", "control")
                job = bench.run(f"{dataset}_{labels}_{pair}".replace(" ", ""), asked, kept)
                first = first or job
                line = f"{dataset}, {labels} labels a class (alone {points(job, 'control'):.1f})"
                found.setdefault(line, []).append(points(job, "treated"))
    shown(found, [*(f"T {temperature:g} w {weight:g}" for temperature, weight in SOFTENED), "plain"])


MEASURED: dict[str, Callable[[Bench, Sequence[int]], None]] = {"rates": rates, "pulls": pulls, "softened": softened}


def points(job: Job, arm: str) -> float:
    """The test metric of one arm in points."""
    (verdict,) = job.report["verdict"]["tasks"].values()
    return 100 * float(verdict[arm]["mean"])


def shown(found: dict[str, list[float]], values: list[str]) -> None:
    print(f"{'':62}" + "".join(f"{value:>12}" for value in values))
    for line, row in found.items():
        print(f"{line:62}" + "".join(f"{value:12.1f}" for value in row), flush=True)
    short = np.mean([[max(row) - value for value in row] for row in found.values()], axis=0)
    print(f"{'short of the best of its line, mean':62}" + "".join(f"{value:12.1f}" for value in short), flush=True)


if __name__ == "__main__":
    main()
