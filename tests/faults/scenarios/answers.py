"""10, 11: an API that is killed between the commit and the wake-up, or between the commit and the answer; many who use one key."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.figures import Figures
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario, chain


def killed(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """kill -9 at the commit of a submission, which is executed or not; the client, who never hears, asks again with its key."""
    proxy = rig.proxy("api")
    armed, inserted = threading.Event(), threading.Event()
    verdict = ["pass"]

    def strike(kind: str, pid: int) -> str:
        if armed.is_set() and kind == "INSERT INTO jobs":
            inserted.set()
        if not (inserted.is_set() and kind == "COMMIT"):
            return "pass"
        armed.clear()
        inserted.clear()
        os.kill(pid, signal.SIGKILL)
        rig.note("kill -9 API after the commit" if verdict[0] == "pass" else "kill -9 API before the commit")
        return verdict[0]

    proxy.strike = strike
    rig.restart_api(**rig.through("api"))
    assert rig.api is not None
    answers: dict[str, str] = {}
    for number in range(size):
        rig.keep_workers(2)
        key, body = f"key-{number}", chain(chance)
        verdict[0] = chance.choice(("pass", "pass", "cut"))
        armed.set()
        heard = rig.submit(key=key, **body)
        figures.expect(heard is None, f"{key}: the API answered, although it had been killed")
        rig.api.process.wait()
        died = time.monotonic()
        rig.start_api(**rig.through("api"))
        for again in (False, True):  # once more than it needs
            job_id = rig.submit(key=key, **body)
            if not again:
                figures.recovery.append(time.monotonic() - died)
            figures.expect(job_id is not None, f"{key}: the retry was refused")
            figures.expect(answers.setdefault(key, str(job_id)) == job_id, f"{key} names two jobs")
    rig.settle(120)
    proxy.close()
    rig.restart_api()
    jobs = rig.rows("SELECT count(*) FROM jobs")[0][0]
    figures.notes["keys"], figures.notes["jobs of them"] = size, jobs
    figures.expect(jobs == size, f"{size} keys made {jobs} jobs")


CLIENTS = 64
REPEATS = (1_000, *100 * (10,))
"""How often each key is used: one by everybody, and a hundred by ten each."""


def repeated(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Clients beside each other submit the same thing under the same key, a thousand times, all of them new to the service: one job."""
    for run in range(size):
        rig.keep_workers(3)
        bodies = {f"{run}-{number}": chain(chance) | {"steps": 1, "source_steps": 0} for number in range(len(REPEATS))}
        keys = [key for key, times in zip(bodies, REPEATS, strict=True) for _ in range(times)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            answered = list(clients.map(lambda key, bodies=bodies: rig.submit(key=key, **bodies[key]), keys))
        rig.note("a key used by many at once")
        figures.notes["submissions repeated"] = (run + 1) * (len(keys) - len(bodies))
        figures.expect(None not in answered, f"{answered.count(None)} of {len(keys)} submissions were refused")
        named = set(zip(keys, answered, strict=True))
        figures.expect(len(named) == len(bodies), f"{len(bodies)} keys were answered with {len(named)} jobs")
    rig.settle(120 + 30 * size, 3)
    jobs = rig.rows("SELECT count(*) FROM jobs")[0][0]
    figures.expect(jobs == size * len(REPEATS), f"{size * len(REPEATS)} keys made {jobs} jobs")


SCENARIOS = (
    Scenario(10, "API killed", killed, "the row before the wake-up; one job for a key", 2, 200, 20),
    Scenario(11, "key repeated", repeated, "the unique index on keys, and who loses to it asks again", 1, 5),
)
