"""What a recorder remembers when the database does not take what it was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import events, jobs
from app.db import transaction
from tests.worker.conftest import event_types, submit
from worker import reports
from worker.recorder import Recorder

pytestmark = pytest.mark.usefixtures("database")


def test_what_is_told_once_is_told_again_after_a_rollback_and_never_twice(tmp_path: Path) -> None:
    job_id = submit()
    claim = jobs.claim("worker-1")
    assert claim is not None
    recorder = Recorder(claim, tmp_path)
    progress = reports.Progress(stage="target", step=1, steps=3, epoch=1, epochs=3, fraction=0.3)
    recorder.take([progress, reports.Metrics(step=1, values={"loss": None})])

    def rolled_back() -> None:
        with transaction() as session:
            recorder.apply(session)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        rolled_back()
    assert not {"epoch", "warning"} & set(event_types(job_id))
    recorder.write()
    recorder.take([progress, reports.Metrics(step=2, values={"loss": None})])
    recorder.write()
    told = event_types(job_id)
    assert (told.count("epoch"), told.count("warning")) == (1, 1)
    recorder.take([progress.model_copy(update={"epoch": 2})])
    recorder.write()
    with transaction() as session:
        assert [event.data["epoch"] for event in events.after(session, job_id) if event.type == "epoch"] == [1, 2]
