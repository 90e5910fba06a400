"""Specs resolved against a lookup of a few kept models, and the faults that are found."""

from __future__ import annotations

from typing import Any

import pytest

from app import data
from app.spec.faults import Invalid, validate
from app.spec.lookup import Missing
from app.spec.models import Manifest, TaskManifest
from app.spec.registry import modules
from worker.training import trainer

MODEL = "job:job_1"


class Lookup(trainer.LocalLookup):
    """The built-in data sets, and one kept model."""

    def __init__(self, **changes: Any):
        schema = data.load("digits").schema
        classes = schema.columns["digit"].classes
        self.kept = Manifest(
            role="model",
            architecture={"arch": "cnn-small", "filters": [4, 8, 8], "dense": 16, "batch_norm": False, "dropout": 0.0},
            input=schema.input,
            tasks={"digit": TaskManifest(type="multiclass", column="digit", classes=classes, units=10)},
            layers=["conv1"],
            parameters=2258,
            sha256="0",
            versions={},
        ).model_copy(update=changes)

    def manifest(self, ref: str) -> Manifest:
        if ref != MODEL:
            raise Missing(ref, "there is no such model", "GET /v1/models lists the models")
        return self.kept


def resolve(body: dict[str, Any], lookup: Lookup | None = None) -> Any:
    method = modules("methods")[body["kind"]]
    return method.resolve(validate(method.Spec, body, later=True), lookup or Lookup())


def faults(body: dict[str, Any], lookup: Lookup | None = None) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        resolve(body, lookup)
    return {fault.pointer: f"{fault.message} ({fault.hint})" for fault in caught.value.faults}
