"""Real workers as processes, jobs of the light method, and ways to wait for what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app import events, jobs
from app.db import transaction
from app.settings import settings
from app.tables import Attempt, Job, Metric
from worker import supervisor
from worker.lease_watchdog import now
from worker.trainers import Trainers

COMMAND = [sys.executable, "-m", "celery", "-A", "worker.main", "worker", "-P", "solo", "-c", "1"]
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"]


def wait_for(condition: Callable[[], Any], seconds: float = 60, what: str = "") -> Any:
    """What `condition` returned once it was true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {seconds} s in vain for {what or condition}"
        time.sleep(0.03)
    return found


def submit(**spec: Any) -> str:
    with transaction() as session:
        return jobs.submit(session, {"kind": "light", **spec}).id


def read(job_id: str) -> Job:
    with transaction() as session:
        return jobs.get(session, job_id)


def ended(job_id: str, seconds: float = 60) -> Job:
    """The job once it is over."""
    return wait_for(lambda: job if (job := read(job_id)).finished_at else None, seconds, f"the end of {job_id}")


def metric_steps(job_id: str, name: str = "loss") -> list[int]:
    with transaction() as session:
        rows = select(Metric.step).where(Metric.job_id == job_id, Metric.name == name).order_by(Metric.step)
        return list(session.scalars(rows))


def steps_done(job_id: str) -> int:
    with transaction() as session:
        return session.execute(select(func.count()).select_from(Metric).where(Metric.job_id == job_id)).scalar_one()


def outcomes(job_id: str) -> list[str | None]:
    with transaction() as session:
        query = select(Attempt.outcome).where(Attempt.job_id == job_id).order_by(Attempt.attempt)
        return list(session.scalars(query))


def event_types(job_id: str) -> list[str]:
    with transaction() as session:
        return [event.type for event in events.after(session, job_id)]


def run(trainers: Trainers, draining: Callable[[], bool] = lambda: False) -> str | None:
    """One attempt of the next job, as a worker runs it; how it ended, None where nothing is runnable."""
    since, claim = now(), jobs.claim("worker-1")
    return None if claim is None else supervisor.run(claim, since, trainers, draining)


@pytest.fixture(scope="module")
def trainers() -> Iterator[Trainers]:
    """Their spares import no Keras."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEQUEST_SPARE_KERAS", "0")
        made = Trainers()
        yield made
        made.close()


@dataclass
class WorkerProcess:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def trainers(self) -> list[int]:
        """Its children: the running trainer and the spare."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(child) for child in children]

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return b"worker_ready" in self.log.read_bytes()


@dataclass
class Workers:
    folder: Path
    environment: dict[str, str]
    started: list[WorkerProcess] = field(default_factory=list)

    def start(self, **environment: str) -> WorkerProcess:
        """A worker that is ready for wake-ups."""
        worker = self.begin(**environment)
        wait_for(worker.ready, 30, "a worker to be ready")
        return worker

    def begin(self, **environment: str) -> WorkerProcess:
        log = self.folder / f"worker-{len(self.started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, *QUIET],
                env={**os.environ, **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        worker = WorkerProcess(process, log)
        self.started.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.started:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.process.kill()
        for worker in self.started:
            worker.process.wait()


@pytest.fixture
def workers(database: None, tmp_path: Path) -> Iterator[Workers]:
    """Starts worker processes, each with spares that import no Keras; all are gone afterwards."""
    group = Workers(tmp_path, {"BEQUEST_SPARE_KERAS": "0", "BEQUEST_LOG_FORMAT": "json", "CUDA_VISIBLE_DEVICES": ""})
    yield group
    group.stop()
    for home in settings().jobs_dir.glob("job_*"):
        assert home.is_dir()
