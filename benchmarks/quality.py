"""Does inheriting help, and is it as good as elsewhere: `python benchmarks/quality.py [--only NAME …] [--seeds N] [--quick]`.

Every figure of docs/quality.md comes from here: positive cases, controls that must not help, 400 comparisons of equals, and the
same arrays, batches and seeds given to torchdistill, TorchJD and Keras's own Distiller. Jobs run as users' jobs do, so the verdicts
are those that users see. Measures quality only, no speed.
Three quarters of an hour on two busy cores; `--quick` a few minutes, and proves nothing.

The rivals have a virtual environment of their own, made by this script under `--rivals`: nothing of them is in any lock file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.experiments import distillation, jobs, multitask, null, page, rivals, transfer

MEASURED: dict[str, ModuleType] = {
    "transfer": transfer,
    "multitask": multitask,
    "distillation": distillation,
    "null": null,
    "rivals": rivals,
}


def main() -> None:
    arguments = options()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    results = out / "quality.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    names = [] if arguments.write_only else arguments.only or list(MEASURED)
    clock = jobs.Clock(sum(MEASURED[name].COST for name in names))
    scratch = out / ("quick" if arguments.quick else "jobs")
    scratch.mkdir(exist_ok=True)
    bench = jobs.Bench(scratch, arguments.seeds, arguments.quick, Path(arguments.rivals), clock=clock)
    for name in names:
        clock.begin(MEASURED[name].COST, MEASURED[name].PIECES)
        begun = time.monotonic()
        measured = MEASURED[name].measure(bench)
        clock.end()
        about = {"seeds": arguments.seeds, "quick": arguments.quick, "minutes": (time.monotonic() - begun) / 60}
        found[name] = {"about": about, **measured}
        results.write_text(json.dumps(found, indent=1))
    print(f"{results}", file=sys.stderr)
    if arguments.write:
        for path in page.write(found, Path(arguments.write)):
            print(path)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--only", nargs="+", choices=MEASURED, metavar="NAME", help=f"of {', '.join(MEASURED)}")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of each verdict")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, fewer settings: to try the script")
    parser.add_argument(
        "--out",
        default=str(temporary / "bequest-quality"),
        help="quality.json, and the jobs: 150 MB; begun again there, what has ended is not trained again",
    )
    parser.add_argument("--write", metavar="PAGE.md", help="write the page and its pictures from quality.json")
    parser.add_argument("--write-only", action="store_true", help="measure nothing")
    parser.add_argument("--rivals", default=str(temporary / "bequest-rivals"), help="the rivals' virtual environment")
    return parser.parse_args()


if __name__ == "__main__":
    main()
