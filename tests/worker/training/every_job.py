"""A job for a name of the catalog, as the trainer is given it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.data import uploads
from app.spec.base import plain
from app.spec.data import Schema
from app.spec.faults import validate
from app.spec.intake import UploadOptions
from app.spec.registry import modules
from tests import every_name
from worker.training import trainer


class Lookup(trainer.LocalLookup):
    """The built-in data sets, and `every_name.UPLOADS`, which are made in the folder `home`."""

    def __init__(self, home: Path):
        sent = {every_name.GAUGES: home / "gauges.npz", every_name.NOTES: home / "notes.csv"}
        every_name.write_gauges(sent[every_name.GAUGES])
        every_name.write_notes(sent[every_name.NOTES])
        asked = {every_name.NOTES: UploadOptions.model_validate(every_name.NOTES_ASKED)}
        self._files = {ref: home / f"{ref}.npz" for ref in sent}
        self._schemas = {
            ref: uploads.inspect_upload(raw, None, self._files[ref], asked.get(ref))[0] for ref, raw in sent.items()
        }

    def schema(self, ref: str) -> Schema:
        return self._schemas[ref] if ref in self._schemas else super().schema(ref)

    def entry(self, ref: str) -> dict[str, Any]:
        return {"path": str(self._files[ref]) if ref in self._files else None, "sha256": "0" * 64}


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
