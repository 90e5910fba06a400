"""1, with Keras: real trainings of all three kinds, killed at seeded points, must end bit for bit as an unbroken run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import random
import signal
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults.figures import Figures
from tests.faults.rig import Rig, Worker
from tests.faults.scenarios import Scenario, trains
from tests.inference import inference_program

TRAINING = {"steps": 150, "batch_size": 16, "checkpoint": {"every_seconds": 0.1}}
PICTURES: dict[str, Any] = {"dataset": "digits", "limit_train_examples": 120, "training": TRAINING}
SPECS: dict[str, dict[str, Any]] = {
    "transfer": {
        **PICTURES,
        "source": {
            "train": {
                "dataset": "strokes",
                "limit_train_examples": 300,
                "architecture": "cnn-small",
                "training": {"steps": 60},
            }
        },
        "control": {"seeds": 1},
    },
    "multitask": {**PICTURES, "tasks": {"digit": {}, "odd": {}}, "trunk": "cnn-small", "control": {"seeds": 0}},
    "distillation": {
        **PICTURES,
        "teacher": {
            "train": {
                "dataset": "digits",
                "limit_train_examples": 120,
                "architecture": "cnn-small",
                "training": {"steps": 60},
            }
        },
        "student": "cnn-small",
        "control": {"seeds": 0},
    },
}
KILLS_A_JOB = 3
KERAS = {"BEQUEST_SPARE_KERAS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def killed(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """kill -9 of worker or trainer in training, up to three times a job; weights and metric rows as if nothing had been."""
    with inference_program(rig.folder.run, **rig.environment):  # which looks at the networks of the first jobs
        _kill_jobs(rig, chance, size, figures)


def _kill_jobs(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    unbroken: dict[str, tuple[dict[str, str], str]] = {}
    for kind in itertools.cycle(SPECS):
        left = size - rig.record.faults.total()  # a kill may come too late, or find no trainer
        if left <= 0:
            break
        body = {"kind": kind, **SPECS[kind]}
        if kind not in unbroken:
            rig.keep_workers(1, **KERAS)
            unbroken[kind] = _result(rig, _ended(rig, body, [], figures))
        fractions = sorted(chance.uniform(0.02, 0.9) for _ in range(min(left, KILLS_A_JOB)))
        job_id = _ended(rig, body, [(fraction, chance.random() < 0.5) for fraction in fractions], figures)
        found = _result(rig, job_id)
        for what, ours, theirs in zip(("weights", "metrics"), found, unbroken[kind], strict=True):
            figures.expect(ours == theirs, f"{kind} {job_id}: {what} differ from an unbroken run's")
    figures.notes["bit-equal to unbroken runs"] = "all" if not figures.violations else "not all"


def _ended(rig: Rig, body: dict[str, Any], kills: list[tuple[float, bool]], figures: Figures) -> str:
    """Submits the job, kills whom it must at those fractions of its work, and waits for its end."""
    job_id = rig.submit(**body)
    if job_id is None:
        raise TimeoutError(f"a {body['kind']} job was not acknowledged: {dict(rig.record.answers)}")
    for fraction, trainer_alone in kills:
        rig.keep_workers(1, **KERAS)
        rig.wait(lambda fraction=fraction: _reached(rig, job_id, fraction), 300, f"{job_id} to reach {fraction:.2f}")
        if rig.rows("SELECT 1 FROM jobs WHERE id = %s AND finished_at IS NOT NULL", job_id):
            figures.notes["ended before the kill"] = figures.notes.get("ended before the kill", 0) + 1
            break
        _kill(rig, rig.workers[0], trainer_alone)
        rig.keep_workers(1, **KERAS)
    rig.settle(300, workers=0)
    state, error = rig.rows("SELECT state, error->>'message' FROM jobs WHERE id = %s", job_id)[0]
    figures.expect(state == "succeeded", f"{body['kind']} {job_id} ended as {state}: {error}")
    return job_id


def _reached(rig: Rig, job_id: str, fraction: float) -> bool:
    query = "SELECT finished_at IS NOT NULL OR (progress->>'fraction')::float >= %s FROM jobs WHERE id = %s"
    return bool(rig.rows(query, fraction, job_id)[0][0])


def _kill(rig: Rig, worker: Worker, trainer_alone: bool) -> None:
    if not trainer_alone:
        rig.kill_worker(worker)
        return
    for pid in worker.trainers():
        if trains(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                rig.note("kill -9 Keras trainer")


def _result(rig: Rig, job_id: str) -> tuple[dict[str, str], str]:
    """A digest of each kept model's numbers by its role (the file also holds a date), and one of all metric rows."""
    kept = rig.rows("SELECT role, sha256 FROM models WHERE job_id = %s", job_id)
    rows = rig.rows("SELECT name, step, value FROM metrics WHERE job_id = %s ORDER BY name, step", job_id)
    models = {role: _digest(rig.data / "store" / "blob" / sha256) for role, sha256 in kept}
    return models, hashlib.sha256(repr(rows).encode()).hexdigest()


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with zipfile.ZipFile(file) as whole, h5py.File(io.BytesIO(whole.read("model.weights.h5"))) as weights:
        found: dict[str, np.ndarray] = {}
        weights.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    for name in sorted(found):
        digest.update(name.encode() + np.ascontiguousarray(found[name]).tobytes())
    return digest.hexdigest()


SCENARIOS = (
    Scenario(
        1,
        "Keras job killed",
        killed,
        "checkpoint, metric log, rewind: everything a fit needs to go on bit by bit",
        1,
        30,
    ),
)
