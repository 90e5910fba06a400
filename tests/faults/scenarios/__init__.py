"""What is done to the service, in the order of the plan. Each function gets a rig that is empty, chance that a seed replays, and a size.

It injects faults and waits until the service has got over them; the checker judges afterwards. `guards` says what in the service
the scenario leans on: remove it, and the scenario must turn red (`tests/faults/mutation.py`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.figures import Figures
from tests.faults.rig import Rig

Run = Callable[[Rig, random.Random, int, Figures], None]


@dataclass(frozen=True)
class Scenario:
    """`ci` and `full` are sizes, mostly numbers of faults; `production` is the size at the settings' production values.

    One that measures how fast the service is runs `alone`, the others beside each other.
    """

    number: int
    name: str
    run: Run
    guards: str
    ci: int
    full: int
    production: int = 0
    alone: bool = False


def trains(pid: int, job: str = "/trainer.log") -> bool:
    """Whether a trainer has a job, or that one (`/ID/`), by the log that it writes to; a spare has none yet."""
    try:
        return job in os.readlink(f"/proc/{pid}/fd/1")  # noqa: PTH115
    except OSError:
        return False


def load(rig: Rig, chance: random.Random, waiting: int) -> None:
    """Sees to it that so many chains are unfinished: short ones, of a few seeds so that some share a blob."""
    for _ in range(waiting - rig.unfinished()):
        rig.submit(excused=True, **chain(chance))


def chain(chance: random.Random) -> dict[str, object]:
    return {
        "seed": chance.randrange(50),
        "steps": chance.randint(6, 24),
        "step_seconds": round(chance.uniform(0.01, 0.1), 3),
        "checkpoint_every": chance.randint(2, 6),
        "source_steps": chance.choice((0, 0, 4)),
        "payload": chance.choice((0, 0, 200_000)),
    }
