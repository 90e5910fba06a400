"""Injects faults and prints what came of it: `./dev faults [--full] [--seed N] [--only NAME] [--soak MIN] [--json FILE]`.

Without --full it is the short cut that continuous integration runs. The exit status is 1 where an invariant was violated. What
was injected, when and into which job, follows from the seed; how the machine interleaves it does not.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.faults.figures import Figures, table
from tests.faults.rig import FAST, PRODUCTION, Rig, Skipped, Timing, rig, seeded
from tests.faults.scenarios import Scenario
from tests.faults.scenarios.registry import SCENARIOS

LONGEST_SCENARIO = 45 * 60


def main(arguments: Sequence[str]) -> int:
    asked = _arguments(arguments)
    if asked.soak:
        asked.only, asked.size = "soak", asked.soak
    chosen = [
        scenario for scenario in SCENARIOS if not asked.only or asked.only in (scenario.name, str(scenario.number))
    ]
    if not chosen:
        names = ", ".join(f"{scenario.number} {scenario.name}" for scenario in SCENARIOS)
        print(f"no scenario is called {asked.only!r}. There are: {names}", file=sys.stderr)
        return 2
    print(f"{machine()}; seed {asked.seed}", flush=True)
    # At production settings nearly all is waiting, so that part runs beside the other: a service of its own, in its own process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
        slow = beside.submit(_run, chosen, asked, PRODUCTION) if asked.full and not asked.size else None
        rows = _run(chosen, asked, FAST)
        rows += slow.result() if slow else []
    if len(rows) > 1:
        print("\n" + table(rows))
    for row in rows:
        for violation in row.violations:
            print(f"{row.scenario}: {violation}")
    if asked.json:
        Path(asked.json).write_text(
            json.dumps({"machine": machine(), "seed": asked.seed, "figures": [row.plain() for row in rows]}, indent=1)
        )
    return 1 if any(row.violations for row in rows) else 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("./dev faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the full sizes, and again at production settings")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one scenario, by name or number")
    parser.add_argument("--size", type=int, help="another size than the scenario's own")
    parser.add_argument("--soak", type=int, metavar="MIN", help="all faults at random, for so many minutes")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser.parse_args(arguments)


def _run(chosen: Sequence[Scenario], asked: argparse.Namespace, timing: Timing) -> list[Figures]:
    rows: list[Figures] = []
    sizes = {scenario: asked.size or _size(scenario, timing, asked.full) for scenario in chosen}
    chosen = [scenario for scenario in chosen if sizes[scenario]]
    if not chosen:
        return rows
    began = time.monotonic()
    with rig(timing) as service:
        for number, scenario in enumerate(chosen):
            rows.append(_one(service, scenario, sizes[scenario], asked.seed))
            spent = time.monotonic() - began
            left = spent / (number + 1) * (len(chosen) - number - 1)
            said = [f"{table(rows[-1:]).splitlines()[-1]} ({number + 1} of {len(chosen)}, {left:.0f} s to go)"]
            if number == 0:
                said.insert(0, table(rows).splitlines()[0])
            said += [f"    {name}: {value}" for name, value in rows[-1].notes.items()]
            said += [f"    VIOLATION: {violation}" for violation in rows[-1].violations]
            print("\n".join(said), flush=True)
    return rows


def _size(scenario: Scenario, timing: Timing, full: bool) -> int:
    """None of a scenario that is not for this run."""
    return scenario.production if timing is PRODUCTION else scenario.full if full else scenario.ci


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


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
