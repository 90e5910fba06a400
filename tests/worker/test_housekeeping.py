"""What a worker tidies up beside its jobs, turn after turn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from app import jobs
from app.db import transaction
from app.settings import settings
from tests.worker.conftest import read, submit, wait_for
from worker import folders, main

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The housekeeping thread of a worker, in a hurry."""
    drained = threading.Event()
    monkeypatch.setattr(main, "_draining", drained)
    monkeypatch.setattr(main, "_TIDY_SECONDS", 0.05)
    monkeypatch.setattr(main, "_say_hello", lambda: None)
    monkeypatch.setattr(settings(), "sweep_seconds", 0.05)
    thread = threading.Thread(target=main._keep_house)
    thread.start()
    yield
    drained.set()
    thread.join(10)


def test_a_job_cancelled_between_two_attempts_leaves_nothing(house: None) -> None:
    job_id = submit()
    claim = jobs.claim("worker-1")
    assert claim is not None
    home = settings().jobs_dir / job_id
    (home / "checkpoints-1").mkdir(parents=True)
    with transaction() as session:
        jobs.requeue(session, claim, outcome="drained", charge=False)
    time.sleep(0.4)  # some turns of the housekeeping, the first among them
    assert home.exists()
    with transaction() as session:
        jobs.cancel(session, job_id, discard=False)
    assert read(job_id).state == "cancelled"
    wait_for(lambda: not home.exists(), 10)


@pytest.mark.parametrize("place", ["store/tmp", "home/tmp"])
def test_only_old_temporary_files_go(place: str) -> None:
    folder = settings().data / place
    folder.mkdir(parents=True, exist_ok=True)
    old, old_folder, new = folder / "old", folder / "old-folder", folder / "new"
    old.write_bytes(b"half")
    (old_folder / "within").mkdir(parents=True)
    new.write_bytes(b"half")
    for entry in (old, old_folder):
        os.utime(entry, (time.time() - 3700,) * 2)
    folders.forget_half_written()
    assert not old.exists()
    assert not old_folder.exists()
    assert new.exists()
    new.unlink()
