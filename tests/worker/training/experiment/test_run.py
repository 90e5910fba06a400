"""What a method is given of a job's data."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from app.data import builtins, prepared
from app.spec.data import SplitSpec
from app.spec.models import TaskSpec, TrainStage
from worker.training.dummy import Quiet
from worker.training.experiment.job import Job


def test_a_data_set_that_is_asked_for_twice_is_read_once(tmp_path: Path) -> None:
    """Of millions of rows the hashes alone are a hundred MiB."""
    prepared.write(builtins.load("iris"), tmp_path / "prepared.npz")
    entry = {"path": str(tmp_path / "prepared.npz"), "sha256": "0" * 64}
    run = Job({"datasets": {"ds_1": entry}}, tmp_path, Quiet(), threading.Event()).run
    data = run.data("ds_1", {"class": TaskSpec()}, SplitSpec())
    stage = run.stage_data(TrainStage.model_validate({"dataset": "ds_1", "architecture": "mlp"}), data.held_out)
    assert stage.table is data.table is run.unlabelled("ds_1", data.held_out).table
    assert np.array_equal(data.table.hashes, builtins.load("iris").hashes)
    assert stage.sha256 == data.sha256 == "0" * 64
