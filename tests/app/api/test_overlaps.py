"""A model that has seen this job's test rows cannot take part in it, whatever part it was to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app import artifacts, data, jobs, models
from app.db import transaction
from app.spec.data import SplitSpec
from app.spec.models import Manifest, TaskManifest
from tests.app.api.conftest import add_job, pointers, problem, start_job

MLP = {"arch": "mlp", "units": [8], "activation": "relu", "batch_norm": False, "dropout": 0.0}


@pytest.fixture
def teacher(client: httpx.Client, tmp_path: Path) -> str:
    """A model that learnt from the training rows of iris, split by seed 1."""
    iris = data.load("iris")
    target = str(iris.schema.target)
    column = iris.schema.columns[target]
    manifest = Manifest(
        role="model",
        architecture=MLP,
        input=iris.schema.input,
        tasks={target: TaskManifest(type="multiclass", column=target, classes=column.classes, units=3)},
        layers=["dense1"],
        parameters=67,
        sha256="0" * 64,
        versions={},
    )
    claim = start_job(job := add_job())
    (tmp_path / "model.keras").write_bytes(b"weights")
    np.save(tmp_path / "rows.npy", iris.hashes[data.split(iris, SplitSpec(seed=1), [target]).train])
    stored, rows = (artifacts.keep_file(tmp_path / name) for name in ("model.keras", "rows.npy"))
    with transaction() as session:
        models.keep(session, jobs.fence(session, claim), claim.attempt, "model", stored, rows, manifest, [])
    return f"job:{job}"


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ({"teacher": "REF"}, "/teacher"),
        ({"teachers": [{"train": {"dataset": "iris"}}, {"model": "REF", "weight": 2.0}]}, "/teachers/1/model"),
        ({"teacher": {"train": {"dataset": "iris"}}, "student": "REF"}, "/student"),
        ({"kind": "transfer", "source": "REF"}, "/source"),
        ({"kind": "multitask", "tasks": {"species": {"teacher": "REF"}}}, "/tasks/species/teacher"),
    ],
)
def test_a_model_of_another_split_is_refused_where_it_is_named(
    client: httpx.Client, teacher: str, words: dict[str, Any], place: str
) -> None:
    body = {"kind": "distillation", "dataset": "iris", "metadata": {"from": teacher}, **named(words, teacher)}
    refused = problem(client.post("/v1/jobs", json=body), 422, "invalid")
    assert pointers(refused) == {place}
    (fault,) = refused["errors"]
    assert fault["code"] == "data_overlap"
    assert f"trained {teacher}" in fault["message"]
    taken = client.post("/v1/jobs", json={**body, "split": {"seed": 1}})
    assert taken.status_code == 202, taken.text


def named(words: Any, ref: str) -> Any:
    if isinstance(words, dict):
        return {key: named(value, ref) for key, value in words.items()}
    if isinstance(words, list):
        return [named(value, ref) for value in words]
    return ref if words == "REF" else words
