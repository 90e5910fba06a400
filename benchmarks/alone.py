"""A job on one uploaded data set, in this process and without a service, for benchmarks on data of others."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from app.spec import base
from app.spec.data import Schema
from app.spec.faults import validate
from app.spec.registry import modules
from benchmarks.memory import Silent
from worker.training import trainer

REF = "ds_benchmark"
"""The data set's name in a job's body."""


class Uploaded(trainer.LocalLookup):
    """The data set REF alone."""

    def __init__(self, schema: Schema):
        self._schema = schema

    def schema(self, ref: str) -> Schema:
        assert ref == REF
        return self._schema


def report(body: dict[str, Any], schema: Schema, prepared: Path, out: Path) -> dict[str, Any]:
    """The report of the job `body` on the data set in the file `prepared`; its files are left in `out`."""
    from worker.training.process import device

    method: Any = modules("methods")[body["kind"]]
    spec = method.resolve(validate(method.Spec, body), Uploaded(schema))
    words = {"id": "job_benchmark", "attempt": 1, "kind": body["kind"], "spec": base.plain(spec)}
    entries = {REF: {"path": str(prepared), "sha256": None}}
    assignment = json.loads(json.dumps({**words, "datasets": entries, "models": {}, "kept": {}}))
    device.prepare()
    out.mkdir()
    ended = trainer.run(assignment, out, Silent(), threading.Event())  # type: ignore[arg-type]
    assert ended == 0, ended
    told: dict[str, Any] = json.loads((out / "report.json").read_bytes())
    return told
