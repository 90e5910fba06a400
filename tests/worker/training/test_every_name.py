"""Every name that the catalog offers trains through the trainer's own entry, all in this process: importing Keras takes longer."""

from __future__ import annotations

import csv
import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from app.data import uploads
from app.spec.base import plain
from app.spec.data import Schema
from app.spec.faults import Invalid, validate
from app.spec.registry import modules
from tests import every_name
from tests.worker.training.small import Quiet
from tests.worker.training.test_trainer import Ended, kept_by
from worker.reports import Exit, Failed, Result
from worker.training import trainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

STAGES = {"source": "source", "teacher": "teachers"}


class World(trainer.LocalWorld):
    """The built-in data sets, and one upload."""

    def __init__(self, file: Path, schema: Schema):
        self.file, self.gauges = file, schema

    def schema(self, ref: str) -> Schema:
        return self.gauges if ref == every_name.GAUGES else super().schema(ref)

    def entry(self, ref: str) -> dict[str, Any]:
        return {"path": str(self.file) if ref == every_name.GAUGES else None, "sha256": "0" * 64}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("gauges")
    every_name.write_gauges(home / "raw.npz")
    return World(home / "gauges.npz", uploads.inspect_upload(home / "raw.npz", None, home / "gauges.npz"))


@pytest.fixture(scope="module")
def stages() -> dict[str, dict[str, Any]]:
    """{a source or teacher, in words: what an earlier job kept as it}. A job goes on from there, as after a restart."""
    return {}


@pytest.mark.parametrize(
    ("section", "name"),
    [pytest.param(*one, marks=[pytest.mark.long] * every_name.large(*one)) for one in every_name.names()],
)
def test_it_trains(section: str, name: str, world: World, stages: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    body = every_name.job_with(section, name)
    method = modules("methods")[body["kind"]]
    if every_name.refused(section, name):
        with pytest.raises(Invalid, match="not installed"):
            method.resolve(validate(method.Spec, body), world)
        return
    spec = plain(method.resolve(validate(method.Spec, body), world))
    before = {
        role: [spec.get(words) for words in (words, "dataset", "target", "split")] for role, words in STAGES.items()
    }
    known = {role: json.dumps([role, *words]) for role, words in before.items()}
    given = {ref: world.entry(ref) for ref in method.inputs(validate(method.Spec, spec)).datasets}
    kept = {role: stages[words] for role, words in known.items() if words in stages}
    job = {
        "id": "job_1",
        "attempt": 1,
        "kind": body["kind"],
        "spec": spec,
        "datasets": given,
        "models": {},
        "kept": kept,
    }
    told = Quiet()
    code = trainer.run(job, tmp_path, told, threading.Event())
    assert code == Exit.DONE, [line for line in told.reports if isinstance(line, Failed)]
    assert isinstance(told.reports[-1], Result)
    new = kept_by(Ended(code, told.reports, tmp_path))
    assert "model" in new
    stages |= {known[role]: entry for role, entry in new.items() if role in known}
    with (tmp_path / "metrics.csv").open(newline="") as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
