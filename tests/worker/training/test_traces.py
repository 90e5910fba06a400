"""A job runs on the very layers that its spec was checked against, or says that it does not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from worker.reports import Exit, Failed
from worker.training import trainer
from worker.training.dummy import Quiet

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

BODY: dict[str, Any] = {
    "kind": "multitask",
    "dataset": "wine",
    "tasks": {"class": {}},
    "trunk": {"arch": "mlp", "units": [4]},
    "training": {"steps": 1},
    "control": {"seeds": 0},
}


def test_a_worker_whose_networks_have_other_layers_fails_the_job(tmp_path: Path) -> None:
    job = trainer.resolved_alone(BODY)
    (name,) = job["spec"]["traces"]
    assert trainer.resolved_alone(job["spec"])["spec"] == job["spec"]
    job["spec"]["traces"] = {name: "0" * 16}
    told = Quiet()
    assert trainer.run(job, tmp_path / "out", told, threading.Event()) == Exit.FAILED
    (failed,) = [one for one in told.reports if isinstance(one, Failed)]
    assert failed.code == "architecture_changed"
    assert "mlp" in failed.message
