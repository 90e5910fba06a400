"""8: workers whose wall clock is an hour off, or is set while they hold a lease."""

from __future__ import annotations

import random
import struct
import time

from tests.faults.figures import Figures
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario, load
from tests.faults.shim import preloaded, tell

HOUR = 3600


def skewed(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Workers an hour ahead and an hour behind, whose clocks jump in the middle of leases: no attempt is lost by it."""
    clocks = [rig.folder.home / f"clock-{number}" for number in range(2)]
    for clock, offset in zip(clocks, (HOUR, -HOUR), strict=True):
        clock.write_bytes(struct.pack("q", offset))
        rig.start_worker(**preloaded(rig, "clock", clock))
    now = time.time()
    dated = [rig.workers[index].said() for index in range(2)]
    hours = [f'"timestamp": "{time.strftime("%Y-%m-%dT%H", time.gmtime(now + offset))}' for offset in (HOUR, -HOUR)]
    figures.expect(
        all(hour in text for hour, text in zip(hours, dated, strict=True)), "the workers' clocks were not moved at all"
    )
    for _ in range(size):
        load(rig, chance, 6)
        time.sleep(chance.uniform(0.2, 1))
        rig.note("clock set")
        tell(chance.choice(clocks), chance.choice((-1, 1)) * chance.randrange(2 * HOUR))
    rig.settle(120)
    again = rig.rows("SELECT count(*) FROM jobs WHERE attempt <> 1 OR state <> 'succeeded'")[0][0]
    figures.expect(again == 0, f"{again} jobs felt a worker's clock")


SCENARIOS = (
    Scenario(
        8, "clock skewed", skewed, "only the database's clock counts; the watchdog's counts what passes", 4, 20, 20
    ),
)
