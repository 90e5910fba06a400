"""What a recorder remembers when the database does not take what it was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import events, jobs
from app.db import transaction
from tests.worker.conftest import event_types, metric_steps, submit
from worker import reports
from worker.recorder import BadFile, Recorder, recorded_checkpoints

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


@pytest.mark.parametrize(
    "report",
    [
        reports.Metrics.model_construct(step=2**60, values={"loss": 1.0}),
        reports.Metrics.model_construct(step=-1, values={"loss": 1.0}),
        reports.Metrics.model_construct(step=1, values={"x" * 300: 1.0}),
        reports.ArtifactReport.model_construct(name="x" * 3000, path="x"),
        reports.Kept.model_construct(role="", model="m", manifest="m"),
        reports.Warned(code="x", message="a\0b"),
        reports.Progress.model_construct(stage="s", step=1, steps=1, fraction=0.5, latest={"a\0": 1.0}),
    ],
)
def test_what_the_database_could_not_keep_is_no_report(report: reports.Warned) -> None:
    with pytest.raises(ValueError, match="not a report"):
        reports.decode(reports.encode(report))
    assert reports.decode(reports.encode(reports.Warned(code="x", message="fine"))).message == "fine"


def test_nothing_is_recorded_beyond_what_was_lost(tmp_path: Path) -> None:
    """Else the next attempt would go on from a checkpoint whose steps nobody has seen."""
    job_id = submit()
    claim = jobs.claim("worker-1")
    assert claim is not None
    recorder = Recorder(claim, tmp_path)
    lost = [reports.ArtifactReport(name="x", path="x"), reports.Metrics(step=2, values={"loss": 2.0})]
    with pytest.raises(BadFile):
        recorder.take([reports.Metrics(step=1, values={"loss": 1.0}), *lost])
    recorder.take(
        [reports.Metrics(step=3, values={"loss": 3.0}), reports.Checkpoint(stage="target", step=3, path="target-3")]
    )
    recorder.write()
    assert metric_steps(job_id) == [1]
    assert "checkpoint" not in event_types(job_id)


@pytest.mark.parametrize(("step", "left"), [(100, {"target-100"}), (0, set())])
def test_a_checkpoint_counts_no_more_once_what_led_to_it_was_taken_back(
    tmp_path: Path, step: int, left: set[str]
) -> None:
    """A later attempt may save one of the same name that nobody records: its worker was frozen, say."""
    job_id = submit()

    def attempt(begun: int, *steps: int) -> set[str]:
        claim = jobs.claim("worker-1")
        assert claim is not None
        recorder = Recorder(claim, tmp_path)
        recorder.take([reports.Resumed(stage="target", step=begun, metric_prefix="")])
        for number in steps:
            saved = reports.Checkpoint(stage="target", step=number, path=f"checkpoints/target-{number}")
            recorder.take([reports.Metrics(step=number, values={"loss": 1.0}), saved])
        if steps:
            recorder.take([reports.Checkpoint(stage="source", step=300, path="source-300")])
        recorder.write()
        with transaction() as session:
            jobs.requeue(session, claim, outcome="drained", charge=False)
            return recorded_checkpoints(session, claim)

    assert attempt(0, 100, 200) == {"target-100", "target-200", "source-300"}
    assert "resumed" not in event_types(job_id), "nothing was there to be taken back"
    assert attempt(step) == {*left, "source-300"}
    assert attempt(step, 200) == {*left, "target-200", "source-300"}


def test_a_write_takes_no_more_rows_than_a_beat_has_time_for(tmp_path: Path) -> None:
    submit()
    claim = jobs.claim("worker-1")
    assert claim is not None
    recorder = Recorder(claim, tmp_path)
    many = {f"value{number}": 1.0 for number in range(1000)}
    recorder.take([reports.Metrics(step=step, values=many) for step in range(25)])
    left = [recorder.pending()]
    while recorder.pending():
        recorder.write()
        left.append(recorder.pending())
    assert left == [25_000, 15_000, 5_000, 0]
    recorder.take([reports.Metrics(step=100, values=many), reports.Warned(code="x", message="x")])
    recorder.refuse_metrics()
    recorder.take([reports.Metrics(step=101, values=many)])
    assert recorder.pending() == 1
    recorder.write()
    assert "warning" in event_types(claim.job_id)
