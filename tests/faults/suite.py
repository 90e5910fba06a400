"""Plays scenarios, each on a rig of its own, and has each judged."""

from __future__ import annotations

import faulthandler
import multiprocessing
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from tests.faults.figures import Figures, table
from tests.faults.rig import FAST, Rig, Skipped, Timing, rig, seeded
from tests.faults.scenarios import Scenario

LONGEST_SCENARIO = 45 * 60  # seconds


@dataclass(frozen=True)
class Part:
    """One scenario at one size."""

    scenario: Scenario
    size: int
    timing: Timing
    seed: int


def play(parts: Sequence[Part], lanes: int) -> list[Figures]:
    """In the order of `parts`, so many beside each other, each in a process and on a service of its own. Prints each as it ends.

    Most of a scenario is waiting. Those that measure speed are played alone, after the others.
    """
    begun: dict[Future[Figures], Part] = {}
    ended: dict[Part, Figures] = {}
    clock = time.monotonic()
    print(table([]).splitlines()[0], flush=True)
    context = multiprocessing.get_context("spawn")
    for width, alone in ((lanes, False), (1, True)):
        with ProcessPoolExecutor(width, context, max_tasks_per_child=1) as pool:
            begun = {pool.submit(_played, part): part for part in parts if part.scenario.alone == alone}
            for future in as_completed(begun):
                ended[begun[future]] = row = future.result()
                spent = time.monotonic() - clock
                _tell(
                    row,
                    f"{len(ended)} of {len(parts)}, {spent / 60:.0f} min so far, "
                    f"about {spent / len(ended) * (len(parts) - len(ended)) / 60:.0f} to go",
                )
    return [ended[part] for part in parts]


def _tell(row: Figures, progress: str) -> None:
    said = [f"{table([row]).splitlines()[-1]} ({progress})"]
    said += [f"    {name}: {value}" for name, value in row.notes.items()]
    said += [f"    VIOLATION: {violation}" for violation in row.violations]
    print("\n".join(said), flush=True)


def _played(part: Part) -> Figures:
    with rig(part.timing) as service:
        return _judged(service, part.scenario, part.size, part.seed)


def _judged(service: Rig, scenario: Scenario, size: int, seed: int) -> Figures:
    name = scenario.name if service.timing == FAST else f"{scenario.name} (production)"
    figures = Figures(name, seed)
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
