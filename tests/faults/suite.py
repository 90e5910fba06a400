"""Plays scenarios, each on a rig of its own, and has each judged.

What is late is a violation where the machine had time for it. A scenario in which nothing worse was found, and during which other
programs kept the machine busy, or whose machine is slower than those for which the limits were set, says nothing of the service: it is
played once more, with so much more patience.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace

from tests.faults import pace
from tests.faults.figures import Figures, table
from tests.faults.rig import Rig, Skipped, rig, seeded
from tests.faults.scenarios import Scenario
from tests.faults.timing import Timing

LONGEST_SCENARIO = 45 * 60  # seconds
USUAL_SLOWNESS = 10.0
"""As `pace` sees it: what the harness's own programs make of two cores at most. The limits of time allow for it."""
LEAST_PATIENCE, MOST_PATIENCE = 2.0, 10.0
SLOW_PROCESSOR = 1.5
"""Times longer than usual: from there on the limits may be too short for what the harness makes of the machine by itself."""


@dataclass(frozen=True)
class Part:
    """One scenario at one size."""

    scenario: Scenario
    size: int
    timing: Timing
    seed: int
    patience: float = 1.0


def play(parts: Sequence[Part], lanes: int) -> list[Figures]:
    """In the order of `parts`, so many beside each other, each in a process and on a service of its own. Prints each as it ends.

    Most of a scenario is waiting. Those that measure speed are played alone, after the others.
    """
    ended: dict[int, Figures] = {}
    clock = time.monotonic()
    print(table([]).splitlines()[0], flush=True)
    context = multiprocessing.get_context("spawn")
    with pace.watched() as machine:
        for width, alone in ((lanes, False), (1, True)):
            chosen = {place: part for place, part in enumerate(parts) if part.scenario.alone == alone}
            with ProcessPoolExecutor(width, context, max_tasks_per_child=1) as pool:
                for place, row in _as_they_end(pool, chosen, machine):
                    ended[place] = row
                    spent, left = (time.monotonic() - clock) / 60, len(parts) - len(ended)
                    to_go = spent / len(ended) * left
                    _tell(row, f"{len(ended)} of {len(parts)}, {spent:.0f} min so far, about {to_go:.0f} to go")
    return [ended[place] for place in range(len(parts))]


def _as_they_end(
    pool: ProcessPoolExecutor, parts: dict[int, Part], machine: pace.Pace
) -> Iterator[tuple[int, Figures]]:
    """Each part's last figures."""
    begun: dict[Future[Figures], int] = {pool.submit(_played, part): place for place, part in parts.items()}
    while begun:
        for future in wait(begun, return_when=FIRST_COMPLETED).done:
            place, row = begun.pop(future), future.result()
            slowness = machine.slowness(row.began, row.began + row.seconds)
            row.notes["work took"] = f"{slowness:.1f} times as long as on a quiet machine"
            if again := with_more_patience(parts[place], row, slowness, machine.own_slowness):
                parts[place] = again
                begun[pool.submit(_played, again)] = place
                _tell(
                    row, f"the machine was busy or is slow: played again with {again.patience:.1f} times the patience"
                )
            else:
                yield place, row


def with_more_patience(part: Part, row: Figures, slowness: float, own_slowness: float = 1.0) -> Part | None:
    """The same once more, where the machine and not the service may be why something was late.

    Args:
        slowness: how many times longer than usual work took meanwhile.
        own_slowness: of that, what is the processor's own.
    """
    patience = min(MOST_PATIENCE, max(LEAST_PATIENCE, slowness / USUAL_SLOWNESS, own_slowness))
    is_late_by_itself = slowness > USUAL_SLOWNESS or own_slowness > SLOW_PROCESSOR
    is_busy = is_late_by_itself and patience > part.patience
    return replace(part, patience=patience) if is_busy and row.violations and row.late == row.violations else None


def _tell(row: Figures, progress: str) -> None:
    said = [f"{table([row]).splitlines()[-1]} ({progress})"]
    said += [f"    {name}: {value}" for name, value in row.notes.items()]
    said += [f"    VIOLATION: {violation}" for violation in row.violations]
    print("\n".join(said), flush=True)


def _played(part: Part) -> Figures:
    with rig(part.timing, patience=part.patience) as service:
        return _judged(service, part.scenario, part.size, part.seed)


def _judged(service: Rig, scenario: Scenario, size: int, seed: int) -> Figures:
    name = f"{scenario.name} (production)" if service.is_production else scenario.name
    figures = Figures(name, seed, began=time.monotonic())
    faulthandler.dump_traceback_later(LONGEST_SCENARIO, exit=True)  # a scenario that hangs says where
    try:
        scenario.run(service, seeded(seed, scenario.name), size, figures)
    except TimeoutError as error:
        figures.expect(False, str(error), late=True)
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
    figures.seconds = time.monotonic() - figures.began
    return figures
