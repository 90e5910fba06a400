"""17: takes each guard out of a copy of the source, in turn, and asks the scenario or test that names it: it must turn red.

`python -m tests.faults.mutation [--only WORD]` prints a line for each and exits with 1 where a guard was not missed. First every proof
is asked about the source as it is, and must be green: then what turns it red is the guard that is gone. A proof that does not end
in time, or breaks otherwise than by a complaint, counts as none. The database's own backstops are taken away by the scenario
`rogue writes` itself.

Left out, because others say the same or no promise needs them: the sweep's advisory lock and the state in its query and in the heartbeat's
(its rows' locks, and only a running job has a lease); what an attempt's end and `metrics.record` and `artifacts.add` ask of attempts
(they run behind the fence); the checkpoints that are kept besides the newest, and a trainer's syncs of it (they save time, not work).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app import embedded
from tests.faults.guards import GUARDS, Guard
from tests.faults.rig import ROOT

LONGEST_SECONDS = 600
GREEN, RED, BROKE = "GREEN", "red", "BROKE"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.faults.mutation", description=__doc__)
    parser.add_argument("--only", default="", help="guards whose name holds this word")
    chosen = [guard for guard in GUARDS if parser.parse_args(arguments).only in guard.name]
    proofs = list(dict.fromkeys((guard.proof, guard.size) for guard in chosen))
    bad = missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of a proof is waiting
        for (proof, _), (colour, why) in zip(proofs, pool.map(lambda one: judge(*one), proofs), strict=True):
            bad += colour != GREEN
            print(f"nothing is gone: {colour:5} {proof} {why}".rstrip(), flush=True)
        lines = enumerate(zip(chosen, pool.map(without, chosen), strict=True), 1)
        for number, (guard, (colour, why)) in lines:
            missed += colour == RED
            print(f"{number:2}/{len(chosen)} {colour:5} {guard.name}: {why}", flush=True)
    print(f"{missed} of {len(chosen)} guards are missed when they are gone; {bad} proofs complain when nothing is")
    return 1 if bad or missed < len(chosen) else 0


def without(guard: Guard) -> tuple[str, str]:
    """What the guard's proof says without it."""
    return judge(guard.proof, guard.size, [guard, *(other for other in GUARDS if other.name == guard.without)])


def judge(proof: str, size: int, gone: Sequence[Guard] = ()) -> tuple[str, str]:
    """GREEN, RED or BROKE, and the first complaint, of a scenario or a test in a tree without some guards."""
    tree = Path(tempfile.mkdtemp(prefix="bqm-", dir=embedded.short_folder()))
    tree.chmod(0o755)
    try:
        for part in ("app", "worker", "migrations", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for guard in gone:
            mutate(tree / guard.file, guard)
        return _asked(tree, proof, size)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def mutate(file: Path, guard: Guard) -> None:
    """Raises AssertionError where the source has no such guard, or more than one: the list is out of date then."""
    text = file.read_text()
    assert text.count(guard.old) == 1, f"{guard.name}: {guard.file} holds it {text.count(guard.old)} times"
    file.write_text(text.replace(guard.old, guard.new))


def _asked(tree: Path, proof: str, size: int) -> tuple[str, str]:
    environment = os.environ | {"PYTHONPATH": str(tree), "BEQUEST_FAULTS_SHRINK": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    is_test = proof.startswith("tests/")
    arguments = (
        ["pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", proof]
        if is_test
        else ["tests.faults", "--only", proof, "--size", str(size), "--json", "figures.json"]
    )
    try:
        run = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return BROKE, f"not over after {LONGEST_SECONDS} s"
    if is_test:
        complaints = [line for line in run.stdout.splitlines() if line.startswith("E ")]
    elif (tree / "figures.json").exists():
        complaints = json.loads((tree / "figures.json").read_text())["figures"][0]["violations"]
    else:
        complaints = []
    if complaints and run.returncode == 1:
        return RED, complaints[0]
    return (BROKE, (run.stdout + run.stderr)[-200:]) if run.returncode or complaints else (GREEN, "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
