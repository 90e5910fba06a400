"""One new file, and nothing else, adds an objective, a weighting or an architecture: to the catalog, to what a job may say, to training."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data
from tests.service.conftest import Service, free_port

pytestmark = pytest.mark.slow

FILES = {
    "objectives/absolute.py": '''"""The mean distance between the probabilities of student and teachers."""

from typing import Any, Literal

from pydantic import Field

from app.spec.base import Words
from worker.training.objectives import Answers, Needs, Setting, only_multiclass
from worker.training.objectives.logits import shares

NEEDS: Needs = "logits"


class Spec(Words):
    type: Literal["absolute"] = "absolute"
    weight: float = Field(1.0, ge=0, le=1e6)


EXAMPLE: dict[str, Any] = {"type": "absolute", "weight": 1.0}


def resolve(spec: Spec, setting: Setting) -> Spec:
    only_multiclass("absolute", setting)
    return spec


def loss(answers: Answers, spec: Spec) -> Any:
    from keras import ops

    told = zip(answers.teachers, shares(answers.weights), strict=True)
    target = sum(share * ops.softmax(teacher, axis=-1) for teacher, share in told)
    return ops.mean(ops.abs(ops.softmax(answers.student, axis=-1) - target), axis=-1)
''',
    "weighting/root.py": '''"""The sum of the losses' square roots: a loss twice as large pulls 0.7 times as hard."""

from typing import Any, Literal

from app.spec.base import Words
from worker.training.weighting import TaskWeighting, only

SMALLEST_LOSS = 1e-12


class Spec(Words):
    name: Literal["root"] = "root"


EXAMPLE: dict[str, Any] = {"name": "root"}


class Weighting(TaskWeighting):
    def parts(self, losses: Any, present: Any) -> Any:
        from keras import ops

        return only(present, ops.sqrt(ops.maximum(only(present, losses, 1.0), SMALLEST_LOSS)))

    def in_use(self, losses: Any, present: Any) -> Any:
        return only(present, 0.5 / only(present, self.parts(losses, present), 1.0))
''',
    "architectures/two_dense.py": '''"""Two dense layers, a wide and a narrow one, on the numbers of a table."""

from typing import ClassVar, Literal

from pydantic import Field

from app.spec.architectures import Architecture, Layer


class Spec(Architecture):
    inputs: ClassVar[Literal["image", "table"]] = "table"
    arch: Literal["two-dense"] = "two-dense"
    wide: int = Field(32, ge=1, le=1024)
    narrow: int = Field(8, ge=1, le=1024)

    def layers(self) -> list[Layer]:
        wide, narrow = ({"units": units, "activation": "relu"} for units in (self.wide, self.narrow))
        return [Layer("wide", "dense", wide), Layer("narrow", "dense", narrow)]
''',
}

WINE = {"train": {"dataset": "wine", "training": {"steps": 30}}}
JOBS: dict[str, dict[str, Any]] = {
    "objectives": {
        "kind": "distillation",
        "dataset": "wine",
        "teacher": WINE,
        "objectives": [{"type": "absolute", "weight": 2.0}],
        "training": {"steps": 40},
    },
    "weighting": {
        "kind": "multitask",
        "dataset": "lowrank",
        "tasks": {"main": {}, "aux_1": {}},
        "limit_train_examples": 300,
        "weighting": "root",
        "training": {"epochs": 3},
    },
    "architectures": {
        "kind": "transfer",
        "dataset": "wine",
        "source": {"train": {**WINE["train"], "architecture": {"arch": "two-dense", "wide": 16}}},
        "training": {"steps": 40},
    },
}

PLAIN_KERAS = """
import sys, keras, numpy as np
for model, rows, answers in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    said = keras.saving.load_model(model).predict(np.load(rows), verbose=0)
    np.savez(answers, **said)
assert not [name for name in sys.modules if name.split(".")[0] in ("app", "worker", "team")]
"""


@pytest.fixture(scope="module")
def extended(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own that finds the package `team`: three files in three folders, not even an `__init__.py`."""
    home = tmp_path_factory.mktemp("plugins")
    for name, text in FILES.items():
        path = home / "team" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    env = {"BEQUEST_PLUGINS": "team", "PYTHONPATH": str(home)}
    running = Service(run_dir / "extended", free_port(), env=env).start()
    yield running
    running.stop()


def test_the_catalog_describes_them_with_their_schemas(extended: Service) -> None:
    catalog = extended.get("/v1/catalog").raise_for_status().json()
    found = {
        "objectives": catalog["objectives"]["absolute"],
        "weighting": catalog["weightings"]["root"],
        "architectures": catalog["architectures"]["two-dense"],
    }
    for (name, text), entry in zip(FILES.items(), found.values(), strict=True):
        assert text.startswith(f'"""{entry["description"]}"""'), name
    assert found["objectives"]["schema"]["properties"]["weight"]["maximum"] == 1e6
    assert found["weighting"]["schema"]["properties"]["name"]["const"] == "root"
    assert found["architectures"]["schema"]["properties"]["narrow"]["default"] == 8


def test_what_does_not_fit_them_is_refused_by_its_pointer(extended: Service) -> None:
    def pointers(**words: Any) -> list[str]:
        answer = extended.post("/v1/jobs/validate", words)
        assert answer.status_code == 422, answer.text
        return [fault["pointer"] for fault in answer.json()["errors"]]

    told = JOBS["objectives"]
    assert pointers(**{**told, "objectives": [{"type": "absolute", "weight": -1.0}]}) == ["/objectives/0/weight"]
    assert pointers(**{**told, "dataset": "breast_cancer", "teacher": {"train": {"dataset": "breast_cancer"}}}) == [
        "/objectives/0/type"
    ]
    assert pointers(**{**told, "student": {"arch": "two-dense", "wide": 0}}) == ["/student/wide"]
    assert pointers(**{**told, "student": "two-dens"}) == ["/student"]
    assert pointers(**{**JOBS["weighting"], "weighting": {"name": "root", "T": 2.0}}) == ["/weighting/T"]


def test_a_job_with_each_of_them_trains_and_its_model_needs_none_of_them(extended: Service, tmp_path: Path) -> None:
    ids = {}
    for name, body in JOBS.items():
        answer = extended.post("/v1/jobs", body)
        assert answer.status_code == 202, answer.text
        ids[name] = answer.json()["id"]
    series, manifests = {}, {}
    words: list[Path] = []
    for name, job_id in ids.items():
        job = extended.finished(job_id)
        assert job["state"] == "succeeded", (job["error"], extended.get(f"/v1/jobs/{job_id}/logs").text[-2000:])
        series[name] = extended.get(f"/v1/jobs/{job_id}/metrics").raise_for_status().json()["series"]
        manifests[name] = extended.get(f"/v1/jobs/{job_id}/artifacts/manifest.json").raise_for_status().json()
        model, rows = tmp_path / f"{name}.keras", tmp_path / f"{name}.npy"
        model.write_bytes(extended.get(f"/v1/jobs/{job_id}/artifacts/model.keras").raise_for_status().content)
        np.save(rows, data.load(JOBS[name]["dataset"]).inputs[:5])
        words += [model, rows, tmp_path / f"{name}.npz"]

    distances = known(series["objectives"]["absolute"])
    assert 0 < min(distances) <= max(distances) < 2 / 3
    for task in ("main", "aux_1"):
        losses, parts = known(series["weighting"][f"{task}_loss"]), known(series["weighting"][f"{task}_weighted_loss"])
        assert losses
        assert all(math.isclose(part, math.sqrt(loss), rel_tol=0.1) for loss, part in zip(losses, parts, strict=True))
    assert manifests["architectures"]["architecture"] == {"arch": "two-dense", "wide": 16, "narrow": 8}
    assert manifests["architectures"]["parameters"] == (13 + 1) * 16 + (16 + 1) * 8 + (8 + 1) * 3

    subprocess.run(
        [sys.executable, "-c", PLAIN_KERAS, *words],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        timeout=200,
        capture_output=True,
    )
    for name, job_id in ids.items():
        with np.load(tmp_path / f"{name}.npz") as said:
            assert set(said) == set(manifests[name]["tasks"])
            assert all(len(values) == 5 and np.isfinite(values).all() for values in said.values())
        rows = np.load(tmp_path / f"{name}.npy")
        answer = extended.post(f"/v1/models/job:{job_id}/predict", {"inputs": rows.tolist()})
        assert len(answer.raise_for_status().json()["predictions"]) == 5


def known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]
