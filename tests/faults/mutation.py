"""17: takes each guard out of a copy of the source, in turn, and asks the scenario or test that names it: it must turn red.

`python -m tests.faults.mutation [--only WORD]` prints a line for each and exits with 1 where a guard was not missed. First every proof
is asked about the source as it is, and must be green: then what turns it red is the guard that is gone. A proof that does not end
in time, or breaks otherwise than by a complaint, counts as none. The database's own backstops are taken away by the scenario
`rogue writes` itself.

Left out, because others say the same or no promise needs them: the sweep's advisory lock and the state in its query and in the beat's
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
from dataclasses import dataclass
from pathlib import Path

from app import embedded
from tests.faults.rig import ROOT

PROTOCOL = "tests/faults/test_protocol.py"
APP_JOBS, MODELS = "tests/app/test_jobs.py", "tests/app/test_models.py"
FAMILY = "tests/worker/test_worker.py::test_a_killed_worker_leaves_no_process_of_its_trainer_s_at_whatever_moment"
ORPHANS = "tests/worker/test_trainers.py::test_all_that_a_trainer_has_started_ends_when_its_worker_is_killed"
LONGEST_SECONDS = 600
GREEN, RED, BROKE = "GREEN", "red", "BROKE"


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


JOBS, SUPERVISOR, ARTIFACTS = "app/jobs.py", "worker/supervisor.py", "app/artifacts.py"
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
        "the fence locks its job",
        JOBS,
        "Job.state == JobState.RUNNING)\n        .with_for_update()",
        "Job.state == JobState.RUNNING)",
        "cancel raced",
        400,
    ),
    Guard("a claim asks for its device", JOBS, ', Job.device.in_(["auto", device])', "", APP_JOBS),
    Guard(
        "a client's call locks its job",
        JOBS,
        "session.get(Job, job_id, with_for_update=lock)",
        "session.get(Job, job_id)",
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
        "a sweep locks what it takes",
        JOBS,
        ".with_for_update(skip_locked=True)\n            .limit(500)",
        ".limit(500)",
        "cancel raced",
        400,
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
        '{"ended_at": func.clock_timestamp(), "outcome": outcome, "detail": detail}',
        '{"detail": detail}',
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
    Guard(
        "a job that has not ended is not deleted",
        JOBS,
        "    if not is_terminal(job.state):\n",
        "    if False:\n",
        APP_JOBS,
    ),
    Guard("a job with heirs is not deleted", JOBS, "    if heirs:\n", "    if False:\n", MODELS),
    Guard(
        "a discard spares what others inherit",
        JOBS,
        "if job.discard and not models.dependents(session, job.id):",
        "if job.discard:",
        MODELS,
    ),
    Guard(
        "a delete waits for submissions that inherit",
        "app/models.py",
        ".order_by(Model.id).with_for_update()).all()",
        ".order_by(Model.id)).all()",
        MODELS,
    ),
    Guard(
        "a submission holds what it inherits",
        "app/assignments.py",
        "        models.hold(session, {model.id for model in inherited.values()})\n",
        "",
        MODELS,
    ),
    Guard(
        "versions of one name are counted in turn",
        "app/models.py",
        'session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 7))"), {"name": name})',
        "pass",
        MODELS,
    ),
    Guard(
        "what a row is about to name is held",
        ARTIFACTS,
        'session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _COLLECT_LOCK})',
        "pass",
        MODELS,
    ),
    Guard(
        "a collection waits for rows that are about to name",
        ARTIFACTS,
        'session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _COLLECT_LOCK})',
        "pass",
        MODELS,
    ),
    Guard(
        "a collection spares what a row names",
        ARTIFACTS,
        "if session.execute(union_all(*named).limit(1)).first() is None:",
        "if True:",
        MODELS,
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
        "a stage that begins further back withdraws its checkpoints beyond",
        "worker/recorder.py",
        '            names = {at: name for at, name in names.items() if at[0] != data["stage"] or at[1] <= data["step"]}\n',
        "            pass\n",
        "tests/worker/test_recorder.py",
    ),
    Guard(
        "fewer sessions are open than there are connections",
        "app/api/deps.py",
        ", max_concurrency=_MOST_SESSIONS)",
        ")",
        "tests/app/api/test_admission.py",
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
        "a fuse that has blown extends no lease",
        SUPERVISOR,
        "        if self._fuse is not None and self._fuse.blown:\n            return",
        "        if False:\n            return",
        "tests/worker/test_trainers.py::test_a_fuse_that_has_blown_extends_no_lease",
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
        ARTIFACTS,
        "            os.fsync(target.fileno())\n",
        "",
        "disk not synced",
        10,
    ),
    Guard(
        "a blob's name is on the disk before its row is written",
        ARTIFACTS,
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
