"""Whole jobs in this process, from their words to their report."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from app.spec.base import plain
from app.spec.faults import validate
from app.spec.models import Manifest
from app.spec.registry import modules
from worker.reports import Exit
from worker.training import trainer
from worker.training.dummy import Quiet


class Lookup(trainer.LocalLookup):
    def __init__(self, models: dict[str, Any]):
        self.models = models

    def manifest(self, ref: str) -> Manifest:
        return Manifest.model_validate(self.models[ref]["manifest"])


def run(body: dict[str, Any], out: Path, *given: dict[str, Any]) -> tuple[Exit, list[Any]]:
    """A job trained in this process; `given` are the models that `job:job_1`, `job:job_2` … stand for."""
    method = modules("methods")[body["kind"]]
    models = {f"job:job_{number}": one for number, one in enumerate(given, 1)}
    spec = method.resolve(validate(method.Spec, body), Lookup(models))
    job = {"id": "job_9", "attempt": 1, "kind": body["kind"], "spec": plain(spec), "datasets": {}, "kept": {}}
    told = Quiet()
    code = trainer.run({**job, "models": models}, out, told, threading.Event())
    return code, told.reports


def kept_model(out: Path, name: str) -> dict[str, Any]:
    """The job's model in `out`, as a later job is given it."""
    about = json.loads((out / "manifest.json").read_text())
    return {"id": name, "path": str(out / "model.keras"), "manifest": about, "rows": str(out / "model.rows.npy")}
