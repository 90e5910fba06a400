"""An attempt on a full disk ends as such, whoever feels it first: the worker, the trainer, or nobody who could still say so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import settings
from tests.small_disk import fill, fill_with_files, free, small_disk
from tests.worker.conftest import outcomes, read, run, submit, wait_for
from worker.trainers import Trainers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("database")]


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the service keeps and writes lies on a small disk."""
    with small_disk(tmp_path / "disk", 4) as disk:
        monkeypatch.setattr(settings(), "data", disk)
        (disk / "jobs").mkdir()
        yield disk


@pytest.mark.parametrize("kept", [0, 4096, 8192, 12_288, 16_384])
def test_an_attempt_on_a_full_disk_ends_as_such_and_another_one_follows(
    trainers: Trainers, full_disk: Path, kept: int
) -> None:
    trainers.warm()
    job_id = submit(steps=6, step_seconds=0, checkpoint_every=1)
    fill(full_disk, kept)
    assert run(trainers) == "queued"
    assert outcomes(job_id) == ["disk_full"]
    free(full_disk)
    wait_for(lambda: run(trainers) == "succeeded")


def test_an_attempt_whose_folder_cannot_be_made_ends_as_such_too(trainers: Trainers, full_disk: Path) -> None:
    trainers.warm()
    job_id = submit(steps=2)
    fill_with_files(full_disk)
    assert run(trainers) == "queued"
    assert outcomes(job_id) == ["disk_full"]


@pytest.mark.parametrize(
    ("behave", "ending", "reason"), [("well", "succeeded", "completed"), ("fail", "failed", "loss_not_finite")]
)
def test_a_job_whose_log_cannot_be_written_ends_as_it_would_have(
    trainers: Trainers, behave: str, ending: str, reason: str
) -> None:
    job_id = submit(steps=3, behave=behave)
    log = settings().jobs_dir / job_id / "trainer.log"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    assert run(trainers) == ending
    assert read(job_id).reason == reason


@pytest.mark.parametrize("behave", ["crash", "segfault"])
def test_a_trainer_that_dies_without_a_word_on_a_full_disk_is_not_said_to_have_crashed(
    trainers: Trainers, full_disk: Path, behave: str
) -> None:
    job_id = submit(steps=60, step_seconds=0.02, checkpoint_every=1000, behave=behave, at=50)
    filling = threading.Timer(0.7, fill, (full_disk,))
    filling.start()
    assert run(trainers) == "queued"
    filling.join()
    assert outcomes(job_id) == ["disk_full"]
