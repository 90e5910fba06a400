"""Whole jobs of each kind on a table with gaps, dates and categories; the kept model is a source and a teacher of later ones."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.data import inputs, prepared, tabular
from app.data.encode import encode_rows
from app.data.upload_limits import UploadLimits
from app.spec.base import plain
from app.spec.data import Schema
from app.spec.faults import Invalid, validate
from app.spec.intake import UploadOptions
from app.spec.registry import modules
from tests.worker.training import mixed
from tests.worker.training.whole_jobs import Lookup, kept_model
from worker.reports import Exit
from worker.training import trainer
from worker.training.dummy import Quiet

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]
TRAINING = {"epochs": 2, "batch_size": 32}


class WithMixed(Lookup):
    """The built-in data sets and a table in a file."""

    def __init__(self, path: Path, models: dict[str, Any]):
        super().__init__(models)
        self._schema = prepared.read(path).schema

    def schema(self, ref: str) -> Schema:
        return self._schema if ref == "mixed" else super().schema(ref)


def run(body: dict[str, Any], path: Path, out: Path, *given: dict[str, Any]) -> dict[str, Any]:
    """The report of a job on the table at `path`; `given` are the models that `job:job_1`, `job:job_2` … stand for."""
    method = modules("methods")[body["kind"]]
    models = {f"job:job_{number}": one for number, one in enumerate(given, 1)}
    spec = method.resolve(validate(method.Spec, body), WithMixed(path, models))
    entry = {"path": str(path), "sha256": "0"}
    job = {"id": "job_9", "attempt": 1, "kind": body["kind"], "spec": plain(spec), "datasets": {"mixed": entry}}
    told = Quiet()
    code = trainer.run({**job, "kept": {}, "models": models}, out, told, threading.Event())
    assert code == Exit.DONE, told.reports[-1]
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = mixed.cells()
    columns["z"] = [
        f"{float(size) * 2 + (colour == 'red'):.2f}"
        for size, colour in zip(columns["size"], columns["colour"], strict=True)
    ]
    options = UploadOptions(targets=["y", "z:number"])
    path = tmp_path_factory.mktemp("table") / "rows.npz"
    prepared.write(tabular.read(io.BytesIO(mixed.text(columns)), "csv", options, UploadLimits())[0], path)
    return path


def test_each_kind_of_job_trains_on_it_and_its_model_takes_rows_as_they_are_sent(table: Path, tmp_path: Path) -> None:
    control = {"control": {"seeds": 3}, "training": TRAINING}
    source = {"train": {"dataset": "mixed", "target": "z", "training": TRAINING}}
    transfer = run(
        {"kind": "transfer", "dataset": "mixed", "target": "y", "source": source, **control}, table, tmp_path / "a"
    )
    assert transfer["verdict"]
    first = kept_model(tmp_path / "a", "mdl_1")
    again = run(
        {"kind": "transfer", "dataset": "mixed", "target": "y", "source": "job:job_1", **control},
        table,
        tmp_path / "b",
        first,
    )
    assert again["verdict"]
    tasks = {"y": {"column": "y"}, "z": {"column": "z"}}
    assert run({"kind": "multitask", "dataset": "mixed", "tasks": tasks, **control}, table, tmp_path / "c")["verdict"]
    body = {"kind": "distillation", "dataset": "mixed", "target": "y", "teacher": "job:job_1", **control}
    augmented = {"training": {**TRAINING, "augmentation": [{"type": "noise", "std": 0.1}]}}
    assert run({**body, **augmented}, table, tmp_path / "d", first)["verdict"]
    model = keras.saving.load_model(tmp_path / "a" / "model.keras", compile=False, safe_mode=True)
    stored = prepared.read(table)
    schema = stored.schema.input
    sent = [inputs.of(schema.kind).preview(row, schema) for row in stored.inputs[:20]]
    rows = encode_rows([*sent, sent[0] | {"age": None, "city": "nowhere", "when": None}], schema)
    answers = model.predict_on_batch(rows)["y"]
    assert np.isfinite(answers).all()
    assert np.array_equal(
        answers[:20], model.predict_on_batch(np.concatenate([stored.inputs[:20], rows[20:]]))["y"][:20]
    )


def test_a_source_of_other_columns_is_refused(table: Path, tmp_path: Path) -> None:
    lookup = WithMixed(table, {})
    features = lookup.schema("mixed").input.features
    other = [
        feature.model_copy(update={"classes": feature.classes and [*feature.classes[::-1]]}) for feature in features
    ]
    changed = lookup.schema("mixed").input.model_copy(update={"features": other})
    known = lookup.schema
    lookup.schema = lambda ref: known("mixed").model_copy(update={"input": changed} if ref == "other" else {})  # type: ignore[method-assign]
    body = {
        "kind": "transfer",
        "dataset": "mixed",
        "target": "y",
        "source": {"train": {"dataset": "other", "target": "y"}},
    }
    method = modules("methods")["transfer"]
    with pytest.raises(Invalid) as refused:
        method.resolve(validate(method.Spec, body), lookup)
    assert [fault.code for fault in refused.value.faults] == ["input_mismatch"]
