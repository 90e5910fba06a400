"""Trainers in processes of their own, driven as the worker drives them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.reports import (
    Kept,
    decode,
)
from worker.training import trainer

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Ended:
    code: int
    reports: list[Any]
    out: Path

    def of(self, kind: type) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]


def drive(
    assignment: dict[str, Any], out: Path, stop_at: Callable[[Any], bool] | None = None, sign: int = signal.SIGTERM
) -> Ended:
    """Gives a spare one assignment and reads its lines to the end; signals it at the first line for which `stop_at` holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.training", "--spare"],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({"assignment": assignment, "out": str(out)}).encode() + b"\n")
        process.stdin.flush()
        reports = []
        for line in process.stdout:
            reports.append(decode(line))
            if stop_at is not None and stop_at(reports[-1]):
                process.send_signal(sign)
                stop_at = None
        return Ended(process.wait(120), reports, out)
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()


def assignment(body: dict[str, Any], home: Path, kept: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**trainer.resolved_alone(body), "checkpoints": str(home / "checkpoints"), "kept": kept or {}}


def kept_by(ended: Ended) -> dict[str, Any]:
    """What the worker would hand to a later attempt."""
    return {
        report.role: {
            "path": str(ended.out / report.model),
            "manifest": json.loads((ended.out / report.manifest).read_text()),
            "rows": str(ended.out / report.rows) if report.rows else None,
        }
        for report in ended.of(Kept)
        if report.role != "unfinished"
    }


def weights_of(kept: dict[str, Any]) -> list[np.ndarray]:
    """The numbers of a kept model's file, read without Keras."""
    import io
    import zipfile

    import h5py

    with zipfile.ZipFile(kept["path"]) as whole, h5py.File(io.BytesIO(whole.read("model.weights.h5"))) as file:
        found: dict[str, np.ndarray] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return [found[name] for name in sorted(found)]


TRANSFER: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "digits",
    "limit_train_examples": {"per_class": 5},
    "source": {
        "train": {
            "dataset": "strokes",
            "architecture": {"arch": "cnn-small", "dropout": 0.2, "batch_norm": True},
            "limit_train_examples": 600,
            "training": {"epochs": 1},
        }
    },
    "batch_norm": "trainable",
    "training": {"steps": 60},
    "control": {"seeds": 1},
}


KINDS: dict[str, dict[str, Any]] = {
    "transfer": {**TRANSFER, "strategy": "lp_ft", "training": {"epochs": 6}},
    "multitask": {
        "kind": "multitask",
        "tasks": {
            "digit": {"dataset": "digits", "limit_train_labels": 50},
            "odd": {"dataset": "digits", "head": {"units": 8}},
            "stroke": {"dataset": "strokes", "column": "digit"},
        },
        "trunk": "cnn-small",
        "limit_train_examples": 300,
        "weighting": "uncertainty",
        "training": {"epochs": 2},
        "control": {"seeds": 1, "primary": "digit"},
    },
    "distillation": {
        "kind": "distillation",
        "dataset": "digits",
        "limit_train_examples": 100,
        "teacher": {"train": {"dataset": "digits", "architecture": "cnn-small", "training": {"epochs": 2}}},
        "student": {"arch": "cnn-small", "filters": [4, 4]},
        "student_init": "from_teacher",
        "unlabelled": "digits",
        "training": {"epochs": 2},
        "control": {"seeds": 1},
    },
    "distillation of numbers": {
        "kind": "distillation",
        "dataset": "diabetes",
        "teachers": [
            {"train": {"dataset": "diabetes", "training": {"epochs": 3}}},
            {"model": {"train": {"dataset": "diabetes", "training": {"epochs": 3, "seed": 1}}}, "weight": 2.0},
        ],
        "student": {"arch": "mlp", "units": [8]},
        "teacher_outputs": "online",
        "training": {"epochs": 3},
        "control": {"seeds": 1},
    },
}
