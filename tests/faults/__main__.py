"""Injects faults and prints what came of it: `./dev faults [--full] [--seed N] [--only NAME] [--soak MIN] [--json FILE]`.

Without --full it is the short cut that continuous integration runs. The exit status is 1 where an invariant was violated. What
was injected, when and into which job, follows from the seed; how the machine interleaves it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.figures import table
from tests.faults.scenarios.registry import SCENARIOS
from tests.faults.suite import Part, play
from tests.faults.timing import FAST, PRODUCTION


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
    parts = [
        Part(scenario, size, FAST, asked.seed)
        for scenario in chosen
        if (size := asked.size or (scenario.full if asked.full else scenario.ci))
    ]
    if asked.full and not asked.size:
        parts += [
            Part(scenario, scenario.production, PRODUCTION, asked.seed) for scenario in chosen if scenario.production
        ]
    rows = play(parts, asked.lanes)
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
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="scenarios beside each other")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser.parse_args(arguments)


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
