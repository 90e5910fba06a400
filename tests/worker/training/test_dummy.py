"""A method tried without a service, as docs/extending.md says: a whole job in a line, or what a method may ask."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from app.spec.data import PerClass, SplitSpec
from app.spec.faults import Invalid
from app.spec.models import TaskSpec
from app.spec.training import TrainingSpec
from tests.extending import FILES
from worker.training import trainer
from worker.training.dummy import Quiet, dummy_job, try_out
from worker.training.methods import transfer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WINE = {"dataset": "wine", "source": {"train": {"dataset": "wine", "training": {"steps": 4}}}, "training": {"steps": 6}}


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_whole_job_is_one_line_and_its_report_is_a_service_s_own(tmp_path: Path) -> None:
    report = try_out(transfer, {**WINE, "control": {"seeds": 1}})
    quiet, out = Quiet(), tmp_path / "out"
    assignment = trainer.resolved_alone({"kind": "transfer", **WINE, "control": {"seeds": 1}})
    assert trainer.run(assignment, out, quiet, threading.Event()) == 0
    served = json.loads((out / "report.json").read_bytes())
    assert report.keys() == served.keys()
    assert report["verdict"]["sentence"] == served["verdict"]["sentence"]
    assert report["tasks"] == served["tasks"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left on disk"


def test_a_method_of_a_file_that_nobody_registered_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        path = tmp_path / "unregistered" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("team.", "unregistered."))
    monkeypatch.syspath_prepend(str(tmp_path))
    pretext = importlib.import_module("unregistered.methods.pretext")
    try:
        report = try_out(pretext, pretext.EXAMPLE)
        assert (report["kind"], report["first"]) == ("pretext", "odd")
        with pytest.raises(Invalid) as faults:
            try_out(pretext, {**pretext.EXAMPLE, "target": "digits", "first": {"dataset": "nowhere"}})
        assert {fault.pointer for fault in faults.value.faults} == {"/target", "/first/dataset"}
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "unregistered"]:
            del sys.modules[name]


def test_what_a_method_may_ask_works_with_no_job_at_all() -> None:
    from app.spec import architectures
    from worker.training.fitting.loss_spec import LossSpec
    from worker.training.fitting.plan import phase

    with dummy_job() as job:
        run = job.run
        data = run.data("wine", {"class": TaskSpec(column="class")}, SplitSpec(), PerClass(per_class=10))
        subset, training = data.subset(0), TrainingSpec(steps=60)
        network = run.fresh(architectures.resolve("mlp"), [subset], 0)
        batches = {"wine": run.batch_source(network, subset, training, 0)}
        fit_spec = run.fit_spec(LossSpec({"wine": ["class"]}, network.tasks), batches, [subset])
        trained = job.fit("alone", network, fit_spec, [phase(60, 1e-2)], training, 0)
        measured = job.score(job.keep("model", "alone", trained, learnt_from=[subset]), data)["class"].measure
        folder = job.out
    assert measured.value > 0.8
    assert not folder.exists()
    with pytest.raises(Exception, match="was not handed"), dummy_job() as job:
        job.run.model("mdl_1", [])
