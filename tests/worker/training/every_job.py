"""A job for a name of the catalog, as the trainer is given it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.spec.base import plain
from app.spec.data import Schema
from app.spec.faults import validate
from app.spec.registry import modules
from tests import every_name
from worker.training import trainer


class Lookup(trainer.LocalLookup):
    """The built-in data sets, and one upload."""

    def __init__(self, file: Path, schema: Schema):
        self.file, self.gauges = file, schema

    def schema(self, ref: str) -> Schema:
        return self.gauges if ref == every_name.GAUGES else super().schema(ref)

    def entry(self, ref: str) -> dict[str, Any]:
        return {"path": str(self.file) if ref == every_name.GAUGES else None, "sha256": "0" * 64}


def unsteady(body: Any) -> Any:
    """The same with dropout and BatchNorm, whose states a resumed run has to have."""
    shaken = {"dropout": 0.25, "batch_norm": True}
    if isinstance(body, dict):
        more = shaken if body.get("arch") in ("mlp", "cnn", "cnn-small") else {}
        return {key: unsteady(value) for key, value in {**more, **body}.items()}
    return {"arch": "cnn-small", **shaken} if body == "cnn-small" else body


def assignment(body: dict[str, Any], lookup: Lookup) -> dict[str, Any]:
    method = modules("methods")[body["kind"]]
    spec = plain(method.resolve(validate(method.Spec, body), lookup))
    given = {ref: lookup.entry(ref) for ref in method.inputs(validate(method.Spec, spec)).datasets}
    return {"id": "job_1", "attempt": 1, "kind": body["kind"], "spec": spec, "datasets": given, "models": {}}
