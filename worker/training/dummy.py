"""A job without a service: to try a method, or a part of one, in a few lines of Python.

    report = try_out(method, {"dataset": "wine"})        # a whole job of any module that is a method
    with dummy_job() as job:                             # or only what a method may ask
        data = job.run.data("wine", {"class": TaskSpec(column="class")}, SplitSpec())

Data sets are the built-in ones, there are no kept models, and nothing is left on disk.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.spec.faults import validate
from worker.training import trainer
from worker.training.process import device

if TYPE_CHECKING:
    from worker.training.experiment.job import Job


class Quiet:
    """A channel that keeps every report and shows none."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def send(self, report: Any) -> None:
        self.reports.append(report)


@contextmanager
def dummy_job(assignment: Mapping[str, Any] | None = None, channel: Quiet | None = None) -> Iterator[Job]:
    """A job whose `run` works as any method's, in a folder that is gone afterwards. `channel`: where its reports go."""
    device.import_keras()
    from worker.training.experiment.job import Job

    with tempfile.TemporaryDirectory(prefix="dummy-") as folder:
        yield Job(assignment or {}, Path(folder), channel or Quiet(), threading.Event())


def try_out(method: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    """Trains all arms of the job of `body` here and now; its report, as `GET /v1/jobs/ID/report` gives it.

    `method`: a module with a method's names, which need not be registered.

    Raises:
        Invalid: `body` has faults; all of them.
        Failure: one whose cause is the job's.
    """
    assignment = trainer.assignment_alone(method, dict(body))
    spec = validate(method.Spec, assignment["spec"])
    with dummy_job(assignment) as job:
        from worker.training.experiment import conduct

        device.prepare(spec.training.deterministic)
        conduct(method.experiment(spec, job.run), job)
        report: dict[str, Any] = json.loads((job.out / "report.json").read_bytes())
    return report
