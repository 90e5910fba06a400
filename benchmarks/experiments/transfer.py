"""Strokes to handwriting at 1, 5 and 20 labels a class, with sources that know nothing beside the one that knows strokes."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.experiments.jobs import Bench, Job, examined, load, relabelled, told

LABELS = (1, 5, 20)
COST, PIECES = 300.0, 15
UNTRAINED = {"steps": 1, "optimizer": {"learning_rate": 1e-12}}
"""One step that changes nothing: the product has no word for a model that was never trained, and needs none."""


def measure(bench: Bench) -> dict[str, Any]:
    """{labels a class: {arm: what its job said}}. All arms of a row have the same controls, which are trained once."""
    shuffled = np.random.default_rng(0).permutation(load("strokes").columns["digit"])
    bench.add("strokes_random_labels", relabelled(load("strokes"), "digit", shuffled))
    found: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    for count in LABELS[1:2] if bench.quick else LABELS:
        row: dict[str, Any] = {}
        first: Job | None = None
        for name, words in arms(bench).items():
            body = {
                "kind": "transfer",
                "dataset": "digits",
                "limit_train_examples": {"per_class": count},
                "training": {"steps": bench.steps(300)},
                **words,
            }
            knowledge = words["source"]["train"]
            key = f"{knowledge['dataset']} {knowledge['training']}"
            kept = {**sources.get(key, {}), **(first.kept("control") if first else {})}
            job = bench.run(f"transfer-{count}-{name}", body, kept)
            sources[key] = job.kept("source")
            first = first or job
            row[name] = {**told(job), "zero_shot": zero_shot(job)}
        found[str(count)] = row
    return found


def arms(bench: Bench) -> dict[str, dict[str, Any]]:
    strokes = {"train": {"dataset": "strokes", "training": {"steps": bench.steps(300)}}}
    random_labels = {"train": {"dataset": "strokes_random_labels", "training": {"steps": bench.steps(300)}}}
    return {
        "fine_tuning": {"source": strokes},
        "lp_ft": {"source": strokes, "strategy": "lp_ft"},
        "feature_extraction": {"source": strokes, "strategy": "feature_extraction"},
        "random_labels": {"source": random_labels},
        "untrained": {
            "source": {"train": {"dataset": "strokes", "training": UNTRAINED}},
            "strategy": "initialize",
        },
    }


def zero_shot(job: Job) -> float:
    """The source's own accuracy on the target's test rows, before it has seen any row of it."""
    again = job.again()
    (data,) = examined(again.run, job)
    return float(again.score(again.kept("source", "source"), data)["digit"].measure.value)
