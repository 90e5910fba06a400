"""The figures of many small jobs, one for each name of the catalog and those of combined.py, to hold two trees against each other:

    python -m tests.figures write FILE [PART OF A NAME]     in each tree
    python -m tests.figures compare FILE FILE               what differs, to the last digit

A change that moves code and means nothing else leaves every loss, score and verdict as it was on the same machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST_SHOWN = 60


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write", file]:
            return write(Path(file))
        case ["write", file, part]:
            return write(Path(file), part)
        case ["compare", before, after]:
            return compare(Path(before), Path(after))
    print(__doc__, file=sys.stderr)  # noqa: T201
    return 2


def write(file: Path, part: str = "") -> int:
    """Trains every job whose name has `part` in it; seconds each, minutes all together."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from worker.training.process import device

    device.import_keras()
    from tests import every_name
    from tests.worker.training import combined, every_job
    from tests.worker.training.attempts import unbroken

    names = [name for name in every_name.names() if not every_name.large(*name) and not every_name.refused(*name)]
    bodies = {" ".join(name): every_job.unsteady(every_name.job_with(*name)) for name in names} | combined.CASES
    figures: dict[str, Any] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="figures-") as home:
        lookup = every_job.Lookup(Path(home))
        for name, body in bodies.items():
            if part in name:
                result = unbroken(every_job.assignment(body, lookup), Path(home) / str(len(figures))).result
                rows = {str(key): value for key, value in result["rows"].items()}
                figures[name] = json.loads(json.dumps({**result, "rows": rows}, default=str))
    file.write_text(json.dumps(figures, sort_keys=True, indent=1))
    print(f"{len(figures)} jobs in {time.monotonic() - began:.0f} s")  # noqa: T201
    return 0


def compare(before: Path, after: Path) -> int:
    """Prints where the jobs that both files have differ. Exit status 1 where any does."""
    old, new = json.loads(before.read_text()), json.loads(after.read_text())
    both = [name for name in old if name in new]
    found = [line for name in both for line in differences(old[name], new[name], name)]
    print(*found[:MOST_SHOWN], f"{len(both)} jobs compared, {len(found)} differences", sep="\n")  # noqa: T201
    return int(bool(found) or not both)


def differences(old: Any, new: Any, at: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{at}/{key}")
    elif old != new:
        yield f"{at}: {str(old)[:200]} | {str(new)[:200]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
