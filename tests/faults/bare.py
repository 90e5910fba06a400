"""Attempts without a trainer: the protocol's own calls on chains of one step, thousands a minute.

For races that need numbers. `python -m tests.faults.bare N` runs N such workers until it is killed.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from app import artifacts, jobs, metrics, models
from app.artifacts import Stored
from app.db import Session, transaction
from app.jobs import Claim, Stale
from app.spec.failures import FAILURES
from app.states import JobState
from tests.faults.methods import chain
from worker.supervisor import AWAY

SPEC = {"kind": "chain", "steps": 1, "seed": 0, "max_attempts": 10}


def stored_model() -> Stored:
    """The model of `SPEC`, in the store."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content())
        return artifacts.keep_file(path)


def content() -> bytes:
    links = chain.links(0, "target")
    next(links)
    return chain.model(next(links), 0)


def run(claim: Claim, chance: random.Random, stored: Stored) -> None:
    """One attempt, with pauses of some milliseconds: it succeeds, fails, is drained, is cancelled, or simply vanishes.

    Raises:
        Stale: the attempt no longer owns its job.
    """
    time.sleep(chance.uniform(0, 0.02))
    heartbeat = jobs.heartbeat(claim)
    if heartbeat is None:
        raise Stale(claim.job_id)
    time.sleep(chance.uniform(0, 0.02))
    if heartbeat.wanted == "cancel":
        with transaction() as session:
            jobs.finish(session, claim, JobState.CANCELLED, reason="cancelled_by_client")
        return
    fate = chance.random()
    if fate < 0.1:
        return  # as if the machine had gone
    with transaction() as session:
        if fate < 0.7:
            _succeed(session, claim, stored)
        elif fate < 0.8:
            kind = FAILURES["loss_not_finite"]
            error = {
                "code": kind.code,
                "message": kind.title,
                "hint": kind.hint,
                "blame": str(kind.blame),
                "retryable": False,
            }
            jobs.finish(session, claim, JobState.FAILED, reason=kind.code, error=error)
        elif fate < 0.9:
            jobs.requeue(session, claim, outcome="drained", charge=False)
        else:
            jobs.requeue(session, claim, outcome="crashed", charge=True)


def _succeed(session: Session, claim: Claim, stored: Stored) -> None:
    job = jobs.fence(session, claim)
    metrics.record(session, claim.job_id, claim.attempt, [(1, {"loss": chain.values(0, "target", 1)[0]})])
    manifest = chain.manifest("model", hashlib.sha256(content()).hexdigest())
    models.keep(session, job, claim.attempt, "model", stored, None, manifest, [])
    jobs.finish(session, claim, JobState.SUCCEEDED, reason="completed")


def work(until: Callable[[], bool], seed: object) -> int:
    """Claims and runs until told otherwise; how many writes were refused as stale."""
    chance, stored, stale = random.Random(str(seed)), stored_model(), 0
    worker_id = f"bare-{threading.get_ident()}-0"
    while not until():
        try:
            claim = jobs.claim(worker_id)
            if claim is None:
                time.sleep(0.02)
                continue
            run(claim, chance, stored)
        except Stale:
            stale += 1
        except AWAY:
            time.sleep(0.2)
    return stale


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        threading.Thread(target=work, args=(lambda: False, number), daemon=True).start()
    threading.Event().wait()
