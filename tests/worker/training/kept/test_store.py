"""What is left of a finished stage: the files of its model, in an order that a kill does no harm to."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data
from app.spec import architectures
from app.spec.data import SplitSpec
from app.spec.models import TaskSpec
from worker.reports import Kept
from worker.training.dummy import Quiet
from worker.training.experiment.job import Job
from worker.training.experiment.report.conclude import Extras
from worker.training.fitting.plan import Trained
from worker.training.kept import export, golden, store
from worker.training.kept.store import Model
from worker.training.process.failures import Stopped
from worker.training.process.metric_log import MetricLog

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]


def kept(out: Path, told: Quiet, **more: Any) -> Model:
    """A source that has learnt from some rows twice, kept without a training."""
    job = Job({"datasets": {"iris": {"path": None, "sha256": "0" * 64}}}, out, told, threading.Event())
    subset = job.run.data("iris", {"class": TaskSpec()}, SplitSpec()).subset(0)
    network = job.run.fresh(architectures.resolve({"arch": "mlp", "units": [4]}), [subset], 0)
    return job.keep("source", "source", Trained(network, 0, 3, 0.1, 1.0, 8, 1, **more), learnt_from=[subset, subset])


def test_a_model_is_the_same_to_the_attempt_that_kept_it_and_to_a_later_one(tmp_path: Path) -> None:
    told = Quiet()
    model = kept(tmp_path, told)
    (line,) = told.reports
    assert isinstance(line, Kept)
    assert line.rows is not None
    words = json.loads((tmp_path / line.manifest).read_text())
    assert words["training"]["weights"] == "last"
    again = store.read("source", {"path": tmp_path / line.model, "manifest": words, "rows": tmp_path / line.rows})
    assert again.manifest == model.manifest
    assert np.array_equal(again.rows, model.rows)
    assert Extras("source", again).counts == Extras("source", model).counts


def test_a_finished_model_has_golden_rows_and_one_that_was_stopped_has_none(tmp_path: Path) -> None:
    kept(tmp_path, Quiet())
    made = golden.read(tmp_path / "source.keras")
    assert made is not None
    assert made.answers["class"].shape == (5, 3)
    own = {row.tobytes() for row in data.load("iris", None).inputs[:]}
    assert not own & {row.tobytes() for row in made.rows}
    with pytest.raises(Stopped):
        kept(tmp_path, Quiet(), stopped=True)
    assert golden.read(tmp_path / "unfinished.keras") is None


class Killed(BaseException):
    """As a kill: no handler of an error runs."""


@pytest.mark.parametrize(("where", "name"), [(export, "check"), (MetricLog, "save")])
def test_a_stage_has_a_manifest_once_its_model_is_checked_and_its_metrics_are_saved(
    where: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without a server, killed there, takes what has a manifest for finished."""

    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(where, name, killed)
    with pytest.raises(Killed):
        kept(tmp_path, Quiet())
    assert {path.name for path in tmp_path.iterdir()} == {"source.keras", "source.rows.npy"}
