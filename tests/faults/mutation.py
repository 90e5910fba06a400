"""17: takes each guard out of a copy of the source, in turn, and asks the scenario that names it: it must turn red.

`python -m tests.faults.mutation [--only WORD]` prints a line for each and exits with 1 where a guard was not missed. The database's own
backstops are taken away by the scenario `rogue writes` itself.

Left out, because others say the same or no promise needs them: the sweep's advisory lock and the state in its query and in the beat's
(its rows' locks, and only a running job has a lease); the guard of attempts in `metrics.record` and `artifacts.add` (they run behind
the fence); the second checkpoint that is kept, and a trainer's syncs of it (they save time, not work).
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
from dataclasses import dataclass
from pathlib import Path

from app import embedded
from tests.faults.rig import ROOT

PROTOCOL = "tests/faults/test_protocol.py"
FAMILY = "tests/worker/test_worker.py::test_a_killed_worker_leaves_no_process_of_its_trainer_s_at_whatever_moment"
ORPHANS = "tests/worker/test_trainers.py::test_all_that_a_trainer_has_started_ends_when_its_worker_is_killed"
LONGEST_SECONDS = 600


@dataclass(frozen=True)
class Guard:
    """`old` becomes `new` in `file`. `proof` is a scenario's name (with a size), or a test.

    `without` names a guard that goes as well, where either alone is enough.
    """

    name: str
    file: str
    old: str
    new: str
    proof: str
    size: int = 0
    without: str = ""


JOBS, SUPERVISOR = "app/jobs.py", "worker/supervisor.py"
GUARDS = (
    Guard(
        "a claim takes queued jobs alone",
        JOBS,
        "Job.state == JobState.QUEUED, Job.run_after <= func.clock_timestamp(), Job.device",
        "Job.run_after <= func.clock_timestamp(), Job.device",
        PROTOCOL,
    ),
    Guard(
        "a claim waits for the delay",
        JOBS,
        "Job.state == JobState.QUEUED, Job.run_after <= func.clock_timestamp(), Job.device",
        "Job.state == JobState.QUEUED, Job.device",
        PROTOCOL,
    ),
    Guard(
        "a claim takes the longest queued",
        JOBS,
        "Job.queued_at, Job.id)\n            .limit(1)",
        "Job.queued_at.desc(), Job.id)\n            .limit(1)",
        PROTOCOL,
    ),
    Guard(
        "a claim locks its job",
        JOBS,
        ".limit(1)\n            .with_for_update(skip_locked=True)",
        ".limit(1)",
        "cancel raced",
        200,
    ),
    Guard("a claim counts the attempt", JOBS, "        job.attempt += 1\n", "", PROTOCOL),
    Guard(
        "a beat names its attempt",
        JOBS,
        "                Job.attempt == claim.attempt,\n                Job.state",
        "                Job.state",
        PROTOCOL,
    ),
    Guard(
        "a beat extends a lease that runs",
        JOBS,
        "                Job.lease_until > func.clock_timestamp(),\n",
        "",
        PROTOCOL,
    ),
    Guard(
        "the fence names the attempt",
        JOBS,
        "Job.id == claim.job_id, Job.attempt == claim.attempt, Job.state == JobState.RUNNING",
        "Job.id == claim.job_id, Job.state == JobState.RUNNING",
        PROTOCOL,
    ),
    Guard(
        "the fence needs a running job",
        JOBS,
        "Job.id == claim.job_id, Job.attempt == claim.attempt, Job.state == JobState.RUNNING",
        "Job.id == claim.job_id, Job.attempt == claim.attempt",
        PROTOCOL,
    ),
    Guard(
        "a client's call locks its job",
        JOBS,
        "select(Job).where(Job.id == job_id).with_for_update()",
        "select(Job).where(Job.id == job_id)",
        "cancel raced",
        400,
    ),
    Guard(
        "an ended job is not cancelled",
        JOBS,
        "    if is_terminal(job.state):\n"
        '        raise Conflict(f"This job has already {job.state}; only jobs that have not ended can be cancelled.")\n',
        "",
        PROTOCOL,
    ),
    Guard(
        "an ended job is not paused",
        JOBS,
        "    if is_terminal(job.state):\n"
        '        raise Conflict(f"This job has already {job.state}; only jobs that have not ended can be {verb}.")\n',
        "",
        PROTOCOL,
    ),
    Guard(
        "a cancelled job is not paused",
        JOBS,
        '    if job.wanted == "cancel":\n        raise Conflict(f"This job is being cancelled',
        '    if False:\n        raise Conflict(f"This job is being cancelled',
        PROTOCOL,
    ),
    Guard(
        "a sweep takes expired leases alone",
        JOBS,
        "Job.state == JobState.RUNNING, Job.lease_until < func.clock_timestamp()",
        "Job.state == JobState.RUNNING",
        PROTOCOL,
    ),
    Guard(
        "a sweep charges the lost attempt",
        JOBS,
        '_again(session, job, "worker_lost", charge=True, detail=detail)',
        '_again(session, job, "worker_lost", charge=False, detail=detail)',
        PROTOCOL,
    ),
    Guard("a sweep sends missing wake-ups", JOBS, "queue.wake(missing) else 0", "False else 0", "broker lost", 4),
    Guard(
        "an attempt's end is written",
        JOBS,
        ".values(ended_at=func.clock_timestamp(), outcome=outcome, detail=detail)",
        ".values(detail=detail)",
        PROTOCOL,
    ),
    Guard("the budget ends a job", JOBS, "charge and job.failures + 1 >= job.max_attempts", "False", PROTOCOL),
    Guard(
        "a cancel is granted when a job is given back",
        JOBS,
        '    if job.wanted == "cancel":\n        return JobState.CANCELLED\n',
        "",
        PROTOCOL,
    ),
    Guard(
        "a pause is granted when a job is given back",
        JOBS,
        'JobState.PAUSED if job.wanted == "pause" else JobState.QUEUED',
        "JobState.QUEUED",
        PROTOCOL,
    ),
    Guard("events follow each other", "app/events.py", "Job.last_event + 1", "Job.last_event + 2", PROTOCOL),
    Guard(
        "a resume forgets what was recorded beyond it",
        "app/metrics.py",
        "of_stage, Metric.step > step",
        "of_stage, Metric.step > step + 10**9",
        "trainer ends",
        24,
    ),
    Guard(
        "only recorded checkpoints are gone on from",
        "worker/folders.py",
        "entry.name in recorded)",
        "True)",
        "worker frozen",
        10,
    ),
    Guard(
        "a checkpoint's hashes are compared",
        "worker/training/checkpoint.py",
        "if any(hashlib.sha256(data).hexdigest() != sums.get(name) for name, data in files.items()):",
        "if False:",
        "checkpoint spoilt",
        10,
    ),
    Guard(
        "a drain charges nothing", SUPERVISOR, '"drained", charge=False', '"drained", charge=True', "rolling drain", 3
    ),
    Guard(
        "a submit waits a second at most for a broker",
        "app/queue.py",
        '            "socket_timeout": 1,\n',
        '            "socket_timeout": 60,\n',
        "broker lost",
        5,
    ),
    Guard(
        "a message that is none is dropped",
        "worker/main.py",
        "            raise Empty from None",
        "            raise",
        "broker nonsense",
        110,
    ),
    Guard(
        "a wake-up needs no acknowledgement",
        "worker/main.py",
        "super().basic_consume(queue, True, *where",
        "super().basic_consume(queue, no_ack, *where",
        "tests/worker/test_messages.py",
    ),
    Guard(
        "the fuse kills a trainer that is cut off",
        "worker/fuse.py",
        "                self._blow()\n",
        "",
        "worker cut off",
        2,
    ),
    Guard(
        "what a trainer has started ends with its worker",
        "worker/training/__main__.py",
        "        guard.start()\n",
        "        pass\n",
        FAMILY,
    ),
    Guard(
        "what has begun a session of its own ends with its worker",
        "worker/training/guard.py",
        ' or (state != b"Z" and _bears(pid, mark))',
        "",
        ORPHANS,
    ),
    Guard(
        "nothing is recorded beyond what was lost",
        "worker/recorder.py",
        "        self._torn = True\n",
        "        pass\n",
        "tests/worker/test_recorder.py",
    ),
    Guard(
        "a trainer dies with its worker, the guard being gone",
        "app/programs.py",
        "_LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)",
        "pass",
        FAMILY,
        without="what a trainer has started ends with its worker",
    ),
    Guard(
        "a blob is on the disk before its row is written",
        "app/artifacts.py",
        "            os.fsync(target.fileno())\n",
        "",
        "disk not synced",
        10,
    ),
    Guard(
        "a blob's name is on the disk before its row is written",
        "app/artifacts.py",
        "        _sync_folder(blobs)\n",
        "",
        "disk not synced",
        10,
    ),
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.faults.mutation", description=__doc__)
    parser.add_argument("--only", default="", help="guards whose name holds this word")
    chosen = [guard for guard in GUARDS if parser.parse_args(arguments).only in guard.name]
    missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of a proof is waiting
        for number, (guard, (is_missed, why)) in enumerate(zip(chosen, pool.map(red_without, chosen), strict=True), 1):
            missed += not is_missed
            print(f"{number:2}/{len(chosen)} {'red  ' if is_missed else 'GREEN'} {guard.name}: {why}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} guards are missed when they are gone")
    return 1 if missed else 0


def red_without(guard: Guard) -> tuple[bool, str]:
    """Whether the guard's proof turns red in a tree without it, and its first complaint."""
    tree = Path(tempfile.mkdtemp(prefix="bqm-", dir=embedded.short_folder()))
    tree.chmod(0o755)
    try:
        for part in ("app", "worker", "migrations", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for gone in (guard, *(other for other in GUARDS if other.name == guard.without)):
            mutate(tree / gone.file, gone)
        return _judge(tree, guard)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def mutate(file: Path, guard: Guard) -> None:
    """Raises AssertionError where the source has no such guard, or more than one: the list is out of date then."""
    text = file.read_text()
    assert text.count(guard.old) == 1, f"{guard.name}: {guard.file} holds it {text.count(guard.old)} times"
    file.write_text(text.replace(guard.old, guard.new))


def _judge(tree: Path, guard: Guard) -> tuple[bool, str]:
    environment = os.environ | {"PYTHONPATH": str(tree), "BEQUEST_FAULTS_SHRINK": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    if guard.proof.startswith("tests/"):
        line = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", guard.proof]
    else:
        line = [
            sys.executable,
            "-m",
            "tests.faults",
            "--only",
            guard.proof,
            "--size",
            str(guard.size),
            "--json",
            "figures.json",
        ]
    try:
        run = subprocess.run(
            line, cwd=tree, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return True, f"not over after {LONGEST_SECONDS} s"
    if guard.proof.startswith("tests/"):
        complaints = [line for line in run.stdout.splitlines() if line.startswith("E ")]
        return run.returncode == 1, complaints[0] if complaints else run.stdout[-200:]
    if not (tree / "figures.json").exists():
        return True, f"it broke: {run.stderr[-200:]}"
    violations = json.loads((tree / "figures.json").read_text())["figures"][0]["violations"]
    return bool(violations), violations[0] if violations else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
