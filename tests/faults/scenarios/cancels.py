"""12: cancels at every moment, twice, and too late."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from app import jobs
from app.db import transaction
from app.errors import Conflict
from app.settings import settings
from tests.faults import bare
from tests.faults.figures import Figures
from tests.faults.record import Cancel
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario, chain

WORKERS, CANCELLERS, SWEEPERS = 6, 2, 2
LEASE = 0.05  # seconds: many attempts lose it while they live


def raced(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """First the protocol's own calls by the thousand, with claims, heartbeats, ends and sweeps at once; then real workers."""
    if rig.is_production:
        return _with_workers(rig, chance, size)
    figures.may_fail.add("loss_not_finite")
    stop = threading.Event()
    made: list[str] = []
    refused: list[int] = []

    def cancel(number: int) -> None:
        own = random.Random(f"{chance.random()} {number}")
        while not stop.is_set():
            if not made:
                time.sleep(0.01)
            # Mostly jobs of the last moment, which are just being claimed, beaten and ended; each perhaps more than once.
            elif _cancelled(rig, own.choice(made[-20:]), discard=own.random() < 0.3):
                time.sleep(own.uniform(0, 0.02))

    def work(number: int) -> None:
        refused.append(bare.work(stop.is_set, f"{chance.random()} {number}"))

    def sweep(_: int) -> None:
        while not stop.wait(0.03):
            jobs.sweep()
            rig.execute(
                "UPDATE jobs SET run_after = now() WHERE state = 'queued' AND run_after > now()"
            )  # no time to lose

    parts = [(work, WORKERS), (cancel, CANCELLERS), (sweep, SWEEPERS)]
    threads = [
        threading.Thread(target=_told, args=(part, number, figures)) for part, count in parts for number in range(count)
    ]
    lease, settings().lease_seconds = settings().lease_seconds, LEASE
    for thread in threads:
        thread.start()
    try:
        while len(made) < size and any(thread.is_alive() for thread in threads):
            with transaction() as session:
                job_id = jobs.submit(session, bare.SPEC).id
            rig.record.submitted[job_id] = bare.SPEC
            made.append(job_id)
            time.sleep(chance.uniform(0, 0.01))
        settings().lease_seconds = lease / 3  # else a slow machine would never come to the end of an attempt
        rig.wait(lambda: not rig.unfinished(), 120, "the races to end")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        settings().lease_seconds = lease
    figures.stale_refused += sum(refused)
    figures.expect(sum(refused) > 0, "no attempt came too late, so no fence was tried", late=True)
    return _with_workers(rig, chance, max(6, size // 40))


def _cancelled(rig: Rig, job_id: str, discard: bool) -> bool:
    """Whether the job could be cancelled yet."""
    asked = time.time()
    rig.record.cancels_asked.add(job_id)
    try:
        with transaction() as session:
            job, _ = jobs.cancel(session, job_id, discard=discard)
            state = job.state
    except Conflict:
        rig.note("cancel too late")
        return False
    rig.note("cancel")
    rig.record.cancels.append(Cancel(job_id, asked, time.time(), state))
    return True


def _with_workers(rig: Rig, chance: random.Random, size: int) -> None:
    """By HTTP: while it waits, is held back, is fetched, trains or has just ended; once or twice."""
    for _ in range(size):
        rig.keep_workers(2)
        job_id = rig.submit(**chain(chance) | {"step_seconds": 0.1})
        if job_id is not None:
            time.sleep(chance.uniform(0, 1.5))
            for verb in chance.choice(((), (), ("pause",), ("pause", "resume"))):
                rig.note(verb)
                rig.request("POST", f"/v1/jobs/{job_id}/{verb}")
            rig.note("cancel by HTTP")
            for _ in range(chance.choice((1, 1, 2))):
                rig.cancel(job_id, discard=chance.random() < 0.3)
    rig.settle(120)


def _told(part: Callable[[int], None], number: int, figures: Figures) -> None:
    """An error that nobody expects is a violation, not the quiet end of a thread."""
    try:
        part(number)
    except Exception as error:
        figures.expect(False, f"{part.__name__}: {type(error).__name__}: {str(error).splitlines()[0]}")


SCENARIOS = (
    Scenario(
        12, "cancel raced", raced, "the row's lock in cancel; the guard of ended jobs; claim's state", 250, 5000, 20
    ),
)
