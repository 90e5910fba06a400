"""A worker that no longer holds its lease kills its own trainer, with a real trainer process each time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app import jobs
from app.settings import settings
from app.states import JobState
from tests.worker.conftest import read, run, submit
from worker import supervisor
from worker.lease_watchdog import now
from worker.trainers import Trainers

pytestmark = pytest.mark.usefixtures("database")


def test_without_a_beat_the_trainer_dies_before_the_lease(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = submit(steps=5000)

    def away(claim: Any) -> Any:
        raise OperationalError("select", {}, Exception("away"))

    monkeypatch.setattr(supervisor.jobs, "heartbeat", away)
    monkeypatch.setattr(settings(), "lease_seconds", 9)  # the watchdog leaves a sixth of it, which a busy machine needs
    began = time.monotonic()
    assert run(trainers) == "lost"
    assert time.monotonic() - began < settings().lease_seconds
    assert read(job_id).state == JobState.RUNNING, "the sweep has the word"


def test_the_watchdog_counts_from_when_the_claim_was_asked_for(trainers: Trainers) -> None:
    """Between the claim's commit and all that follows, the worker may have been frozen."""
    submit(steps=5000)
    claim = jobs.claim("worker-1")
    assert claim is not None
    assert supervisor.run(claim, now() - settings().lease_seconds, trainers, lambda: False) == "lost"
