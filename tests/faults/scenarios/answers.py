"""10: an API that is killed between the commit and the wake-up, or between the commit and the answer."""

from __future__ import annotations

import os
import random
import signal
import threading

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
        rig.start_api(**rig.through("api"))
        for _ in range(2):  # once more than it needs
            job_id = rig.submit(key=key, **body)
            figures.expect(job_id is not None, f"{key}: the retry was refused")
            figures.expect(answers.setdefault(key, str(job_id)) == job_id, f"{key} names two jobs")
    rig.settle(120)
    proxy.close()
    rig.restart_api()
    jobs = rig.rows("SELECT count(*) FROM jobs")[0][0]
    figures.notes["keys"], figures.notes["jobs of them"] = size, jobs
    figures.expect(jobs == size, f"{size} keys made {jobs} jobs")


SCENARIOS = (Scenario(10, "API killed", killed, "the row before the wake-up; one job for a key", 2, 200, 20),)
