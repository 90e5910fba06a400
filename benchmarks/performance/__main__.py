"""How fast the service trains: `python -m benchmarks.performance [--only NAME …] [--rounds N] [--write docs/performance.md]`.

Measured are ratios: what is compared runs in turns on the same processor, and a round's measurement is divided by another one of that
round. Told are medians of the rounds with quartiles, so that little is seen of other work on the machine. What is compared trains the
same network on the same rows in the same batches.

Per step there are no validations and checkpoints, which end a call of many steps in a job. "A call for each step": the present code with a
call of TensorFlow for each. "A bare loop": what is left where nothing is asked but the numbers: a compiled loop of 64 steps (8 of large
pictures) over data on the device, one loss, Adam, no logs. "At 843b02f": the project before its calls took many steps, run from a checkout
that is gone at the end. The hand-written script with Keras's `fit` makes a new model for each of its fits, and is not asked to be
repeatable bit by bit, as the service's job is; the service's job also writes a report with a verdict, which the script does not. Whole
jobs have three rounds at most.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import ingest, serving
from benchmarks.performance import fits, jobs, libraries, steps
from benchmarks.performance.programs import Bench, Missing
from benchmarks.performance.results import HEAD, NotRun, Result, Results, command, page
from worker.training.process import device

Measure = Callable[[Bench, str], Results]

ROWS: dict[str, Measure] = {
    **dict.fromkeys(fits.CASES, steps.steps),
    **dict.fromkeys(("uncertainty", "pcgrad", "cagrad", "mgda"), steps.weighted),
    **{f"former-{name}": steps.against_former for name in fits.CASES},
    "augmented": steps.augmented,
    **{f"fresh-{name}": steps.fresh for name in fits.CASES if name != "mlp"},
    **dict.fromkeys(jobs.JOBS, jobs.whole),
    "programs": jobs.programs,
    "memory": jobs.memory,
    "stop": jobs.stopping,
    "distiller": libraries.distiller,
    **dict.fromkeys(libraries.COUNTERPARTS, libraries.torchjd),
}

SECTIONS: dict[str, Callable[[int], list[str]]] = {"predictions": serving.section, "ingest": ingest.section}
"""What has a table of its own."""

NO_CARD = "no card here"
ON_A_CARD = [
    NotRun("the article's CNN, batches of 64, on a GPU", "Keras `fit`", NO_CARD, "≥ 8×"),
    NotRun("the article's CNN, batches of 512, on a GPU", "Keras `fit`", NO_CARD, "≥ 3.2×"),
]


def main() -> None:
    asked = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was checked out and begun is ended
    device.import_keras()
    device.prepare()
    found: list[Result | NotRun] = []
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bequest-performance-")))
        bench = Bench(asked.rounds, place, asked.rivals, stack)
        print("\n".join(HEAD), flush=True)
        for name in (name for name in asked.only if name in ROWS):
            print(f"{name} …", file=sys.stderr, flush=True)
            for result in measured(bench, name):
                found.append(result)
                print(result.line(), flush=True)
    sections = list[str]()
    for name in (name for name in asked.only if name in SECTIONS):
        print(f"{name} …", file=sys.stderr, flush=True)
        sections += ["", *SECTIONS[name](asked.rounds)]
        print("\n".join(sections), flush=True)
    is_whole = asked.only == [*ROWS, *SECTIONS]
    if is_whole:
        found += ON_A_CARD
    if asked.write is not None:
        how = (__doc__ or "").strip().split("\n\n")[1:]
        line = command([] if is_whole else asked.only, asked.rounds)
        whole = page(how, line, asked.rounds, found) + "\n".join([*sections, ""] if sections else [])
        asked.write.write_text(whole, encoding="utf-8")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*ROWS, *SECTIONS],
        default=[*ROWS, *SECTIONS],
        metavar="NAME",
        help=f"of {', '.join([*ROWS, *SECTIONS])}",
    )
    parser.add_argument("--rounds", type=int, default=7)
    rivals = Path(tempfile.gettempdir()) / "bequest-rivals"
    parser.add_argument(
        "--rivals",
        type=Path,
        default=rivals,
        help="the virtual environment of PyTorch and TorchJD, made where it is not",
    )
    parser.add_argument("--write", type=Path, metavar="PAGE.md")
    return parser.parse_args()


def measured(bench: Bench, name: str) -> Results:
    """The results of one row's function, each as soon as it is there; what cannot be measured here is told, and the rest goes on."""
    try:
        yield from ROWS[name](bench, name)
    except Missing as missing:
        yield NotRun(f"`{name}`", "", str(missing))


if __name__ == "__main__":
    main()
