"""How a worker begins, and how it asks for its jobs."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import signals

from app import jobs
from app.settings import settings
from app.spec import backends
from tests.worker.conftest import read, run, submit
from worker import main, supervisor
from worker import trainers as trainer_processes
from worker.lease_watchdog import now
from worker.trainers import Trainer, Trainers

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def process(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This one, as a worker that has just come up."""
    monkeypatch.setattr(main, "trainers", trainers)
    monkeypatch.setattr(main, "_device", "cpu")
    monkeypatch.setattr(main, "_has_told", False)
    yield
    trainers.close()


def is_refused() -> None:
    raise BlockingIOError(errno.EAGAIN, "no process is left")


def test_a_worker_that_begins_on_a_backlog_learns_its_device_from_its_first_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Trainer, "device", lambda trainer: "cuda" if trainer._given else None)  # a spare still imports
    backlog = [submit(steps=1), submit(steps=1, device="gpu")]
    main.wake()
    assert [read(job_id).state for job_id in backlog] == ["succeeded", "succeeded"]


def test_a_worker_offers_other_backends_only_once_it_knows_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        backends, "installed", lambda device: ("tensorflow", "jax") if device == "cpu" else ("tensorflow",)
    )
    monkeypatch.setattr(backends, "default", lambda: "tensorflow")
    assert main._backends(main._known_device()) == ("tensorflow",), "it may yet be a GPU, without the plugin"
    monkeypatch.setattr(main.trainers, "device", lambda: "cpu")
    assert main._backends(main._known_device()) == ("tensorflow", "jax")
    monkeypatch.setattr(main.trainers, "device", lambda: "gpu")
    assert main._backends(main._known_device()) == ("tensorflow",)


def test_a_worker_says_its_device_while_a_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "device", lambda _: "cuda")
    monkeypatch.setattr(main, "_running", submit())
    main.trainers.warm()
    main._say_hello()
    assert main._device == "gpu"


def test_the_lease_is_no_younger_than_the_call_that_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    submit()
    asked: list[float] = []
    handed: list[float] = []
    claim = jobs.claim

    def watched(*arguments: Any) -> Any:
        asked.append(now())
        return claim(*arguments)

    monkeypatch.setattr(jobs, "claim", watched)
    monkeypatch.setattr(supervisor, "run", lambda _claim, since, *_: handed.append(since))
    main.wake()
    assert len(handed) == 1
    assert handed[0] <= asked[0]


def test_a_worker_whose_spare_cannot_be_started_keeps_house(monkeypatch: pytest.MonkeyPatch) -> None:
    drained, swept = threading.Event(), threading.Event()
    monkeypatch.setattr(main, "trainers", Trainers())
    monkeypatch.setattr(trainer_processes, "Trainer", is_refused)
    monkeypatch.setattr(main, "_draining", drained)
    monkeypatch.setattr(jobs, "sweep", swept.set)
    monkeypatch.setattr(settings(), "sweep_seconds", 0.05)
    signals.worker_ready.send(sender=None)
    assert swept.wait(10)
    drained.set()
    for thread in threading.enumerate():
        if thread.name == "house":
            thread.join(10)


def test_a_spare_that_cannot_be_started_costs_the_running_job_nothing(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers.warm()
    monkeypatch.setattr(trainer_processes, "Trainer", is_refused)
    submit(steps=20)
    assert run(trainers) == "succeeded"
    assert trainers._spare is None
