"""Plays scenarios on a rig of their own and has each judged."""

from __future__ import annotations

import faulthandler
import time
import traceback
from collections.abc import Mapping

from tests.faults.figures import Figures, table
from tests.faults.rig import FAST, Rig, Skipped, Timing, rig, seeded
from tests.faults.scenarios import Scenario

LONGEST_SCENARIO = 45 * 60  # seconds


def played(sizes: Mapping[Scenario, int], seed: int, timing: Timing) -> list[Figures]:
    """Each scenario at its size, one after another; none where that is 0. Prints what came of each as soon as it is known."""
    rows: list[Figures] = []
    chosen = [scenario for scenario, size in sizes.items() if size]
    if not chosen:
        return rows
    began = time.monotonic()
    with rig(timing) as service:
        for number, scenario in enumerate(chosen):
            rows.append(_one(service, scenario, sizes[scenario], seed))
            spent = time.monotonic() - began
            left = spent / (number + 1) * (len(chosen) - number - 1)
            said = [f"{table(rows[-1:]).splitlines()[-1]} ({number + 1} of {len(chosen)}, {left:.0f} s to go)"]
            if number == 0:
                said.insert(0, table(rows).splitlines()[0])
            said += [f"    {name}: {value}" for name, value in rows[-1].notes.items()]
            said += [f"    VIOLATION: {violation}" for violation in rows[-1].violations]
            print("\n".join(said), flush=True)
    return rows


def _one(service: Rig, scenario: Scenario, size: int, seed: int) -> Figures:
    name = scenario.name if service.timing is FAST else f"{scenario.name} (production)"
    figures = Figures(name, seed)
    service.reset()
    began = time.monotonic()
    faulthandler.dump_traceback_later(LONGEST_SCENARIO, exit=True)  # a scenario that hangs says where
    try:
        scenario.run(service, seeded(seed, scenario.name), size, figures)
    except TimeoutError as error:
        figures.violations.append(str(error))
    except Skipped as why:
        figures.notes["SKIPPED"] = str(why)
        print(f"SKIPPED {scenario.name}: {why}", flush=True)
    except Exception as error:  # a defect of the scenario is no reason to lose what the others find
        traceback.print_exc()
        figures.violations.append(f"the scenario broke off: {type(error).__name__}: {error}")
        service.stop_workers()
        service.restart_api()
    figures.judged(service)
    faulthandler.cancel_dump_traceback_later()
    figures.seconds = time.monotonic() - began
    return figures
