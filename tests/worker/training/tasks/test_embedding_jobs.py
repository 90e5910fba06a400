"""Jobs that learn vectors: learnt on some identities they tell others apart, and the verdict's unit is the identity."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data as datasets
from app.data.table import row_hashes
from app.spec import architectures
from app.spec.data import Column, PerClass, SplitSpec
from app.spec.models import TaskSpec
from app.spec.training import OptimizerSpec, TrainingSpec
from worker.training.data.rows import Data
from worker.training.dummy import dummy_job, try_out
from worker.training.experiment.job import Job
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import phase
from worker.training.kept.store import Model
from worker.training.methods import multitask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WHO = TaskSpec(column="who", type="embedding", units=8)
BY_WHO = SplitSpec(by="group", column="who", train=0.5, validation=0.2, test=0.3)


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def job() -> Iterator[Job]:
    with dummy_job() as made:
        yield made


def people(job: Job, monkeypatch: pytest.MonkeyPatch, limit: Any = None) -> Data:
    """120 identities of 8 rows: 4 numbers that say who it is, hidden in 13 of which 9 are louder and say nothing."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(120), 8)
    rows = np.hstack([rng.normal(0, 1, (120, 4))[who] + rng.normal(0, 0.3, (960, 4)), rng.normal(0, 3, (960, 9))])
    rows = (rows @ np.linalg.qr(rng.normal(0, 1, (13, 13)))[0]).astype(np.float32)
    wine = datasets.load("wine")
    column = Column(name="who", type="category", classes=[f"n{i}" for i in range(120)], counts=[8] * 120)
    table = replace(
        wine,
        inputs=rows,
        hashes=row_hashes(rows),
        columns={"who": who.astype(np.int32)},
        schema=wine.schema.model_copy(update={"columns": {"who": column}, "rows": 960, "target": "who"}),
    )
    monkeypatch.setattr(job.run, "_table", lambda _: (table, None))
    return job.run.data("people", {"who": WHO}, BY_WHO, limit)


def trained(job: Job, data: Data, steps: int) -> Model:
    subset, training = (
        data.subset(0),
        TrainingSpec(steps=steps, batch_size=64, optimizer=OptimizerSpec(learning_rate=3e-3)),
    )
    network = job.run.fresh(architectures.resolve("mlp"), [subset], 0)
    batches = {data.ref: job.run.batch_source(network, subset, training, 0)}
    fit_spec = job.run.fit_spec(LossSpec({data.ref: ["who"]}, network.tasks), batches, [subset])
    fit = job.fit("alone", network, fit_spec, [phase(steps, 3e-3)], training, 0)
    return job.keep("model", "alone", fit, learnt_from=[subset])


def test_identities_that_were_never_seen_are_told_apart(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    data = people(job, monkeypatch)
    who = data.table.columns["who"]
    sides = [set(who[rows].tolist()) for rows in (data.split.train, data.split.validation, data.split.test)]
    assert sum(map(len, sides)) == 120
    model = trained(job, data, 400)
    measure = job.score(model, data)["who"].measure
    assert measure.n_units == len(sides[2]) == 36
    untrained = job.run.fresh(architectures.resolve("mlp"), [data.subset(1)], 1)
    begun = job.answers(untrained, data.table.inputs)["who"]
    assert measure.value > 0.9
    figures = job.figures(model, data)["who"]
    assert figures["equal_error_rate"] < 0.2
    assert figures["identities"] == 36
    vectors = job.answers(model.network, data.table.inputs)["who"]
    assert vectors.shape == begun.shape == (960, 8)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(960), abs=1e-5)
    import keras

    kept = keras.saving.load_model(job.out / "model.keras").predict(data.table.inputs[:20], verbose=0)["who"]
    assert kept == pytest.approx(vectors[:20], abs=1e-5)


def test_a_limit_for_each_identity_leaves_validation_rows(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = people(job, monkeypatch, PerClass(per_class=2)).subset(0)
    assert len(subset.train) == 2 * 60
    assert 0.2 < len(subset.validation) / len(subset.data.split.validation) < 0.3, "in proportion"


def test_beside_another_task_it_is_judged_by_identities() -> None:
    report = try_out(
        multitask,
        {
            "kind": "multitask",
            "dataset": "digits",
            "tasks": {"digit": {"type": "embedding", "units": 4}, "odd": {}},
            "split": {"by": "group", "column": "digit", "train": 0.6, "validation": 0.2, "test": 0.2, "seed": 4},
            "limit_train_examples": 100,
            "trunk": "cnn-small",
            "training": {"steps": 4},
            "control": {"seeds": 1, "primary": "digit"},
        },
    )
    verdict = report["verdict"]["tasks"]["digit"]
    assert (verdict["metric"], verdict["test_unit"], verdict["n_test"]) == ("roc_auc", "group", 2)
    assert report["tasks"]["digit"]["identities"] == 2
    assert report["baselines"]["digit"]["constant"]["value"] == 0.5
    assert "digit" in report["sentence"] or report["sentence"].startswith("inconclusive: ROC-AUC")
