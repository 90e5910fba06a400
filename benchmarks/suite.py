"""Two versions' tests at the same time, each in one process: `python -m benchmarks.suite OTHER`.

OTHER is a checkout of another commit, whose tests run in this environment too. Those are run that both have (by function and
parameters, wherever their files are by now), file by file in the other's order. Printed are the seconds of all that both had run when the
first of the two was through; then the second is ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]

PLUGIN = """
import os, time
from pathlib import Path


def name(nodeid):
    file, *_, test = nodeid.split("::")
    return file.rpartition("/")[2] + "::" + test


def pytest_collection_modifyitems(items):
    wanted = os.environ.get("WANTED")
    if wanted is None:
        Path(os.environ["FOUND"]).write_text("\\n".join(name(item.nodeid) for item in items))
        return
    place = {test: number for number, test in enumerate(Path(wanted).read_text().split("\\n"))}
    items[:] = [item for item in items if name(item.nodeid) in place]
    first = {}
    for item in items:
        first[item.path] = min(place[name(item.nodeid)], first.get(item.path, len(place)))
    items.sort(key=lambda item: first[item.path])
    global began
    began = time.time()


def pytest_runtest_logfinish(nodeid):
    with open(os.environ["FOUND"], "a") as file:
        file.write(f"{time.time() - began:.2f} {name(nodeid)}\\n")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--only", default="", help="tests whose file and name hold this word")
    asked = parser.parse_args()
    checkouts = {"here": HERE, "other": asked.other.resolve()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "suite_plugin.py").write_text(PLUGIN)
        found = {}
        for label, checkout in checkouts.items():
            started(work, checkout, work / f"{label}.names", "--collect-only").wait()
            found[label] = (work / f"{label}.names").read_text().split("\n")
        pairs = [pair for pair in matched(found["other"], found["here"]) if asked.only in pair[0]]
        print(f"{len(found['other'])} tests there, {len(found['here'])} here, {len(pairs)} in both")
        running = {}
        for label, checkout in checkouts.items():
            wanted = work / f"{label}.wanted"
            wanted.write_text("\n".join(pair[label == "here"] for pair in pairs))
            (work / f"{label}.times").touch()
            running[label] = started(work, checkout, work / f"{label}.times", wanted=wanted)
        while all(process.poll() is None for process in running.values()):
            time.sleep(1)
        seconds = {label: spent((work / f"{label}.times").read_text()) for label in checkouts}
        for process in running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait()
    both = [(there, here) for there, here in pairs if there in seconds["other"] and here in seconds["here"]]
    there = sum(seconds["other"][name] for name, _ in both)
    here = sum(seconds["here"][name] for _, name in both)
    print(f"through: {len(seconds['other'])} there, {len(seconds['here'])} here")
    print(f"of the {len(both)} that both had run: {there:.0f} s there, {here:.0f} s here")


def started(
    work: Path, checkout: Path, found: Path, *options: str, wanted: Path | None = None
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{work}", "FOUND": str(found)}
    if wanted is not None:
        environment["WANTED"] = str(wanted)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "suite_plugin",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        "-q",
        *options,
    ]
    return subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def matched(there: list[str], here: list[str]) -> list[tuple[str, str]]:
    """The tests that both have: of the same file and name, else of the same name where that is one test's alone."""
    exact, by_name = set(here), {name.partition("::")[2]: name for name in here}
    many = Counter(name.partition("::")[2] for name in here), Counter(name.partition("::")[2] for name in there)
    pairs = []
    for name in there:
        test = name.partition("::")[2]
        if name in exact:
            pairs.append((name, name))
        elif all(count[test] == 1 for count in many):
            pairs.append((name, by_name[test]))
    return pairs


def spent(lines: str) -> dict[str, float]:
    """Seconds of each test: from the end of the one before to its own."""
    found, before = dict[str, float](), 0.0
    for line in lines.splitlines():
        at, _, name = line.partition(" ")
        found[name], before = float(at) - before, float(at)
    return found


if __name__ == "__main__":
    main()
