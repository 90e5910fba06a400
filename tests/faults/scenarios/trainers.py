"""2, 13: trainers that end in every way, and checkpoints that a bad disk has spoilt."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.figures import Figures
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario, load, trains

ENDS = ("fail", "memory", "retry", "exit_1", "exit_137", "kill", "segfault")
HOPELESS = {"fail": "loss_not_finite", "memory": "memory_limit"}
DAMAGES = ("cut", "bit flip", "empty", "no manifest", "all of them")


def ended(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Trainers that fail, crash and are killed, from within and from outside: the right state, the budget exact."""
    rig.keep_workers(3)
    expected: dict[str, tuple[str, int, str | None]] = {}
    figures.may_fail |= set(HOPELESS.values())
    for _ in range(size):
        spec = {"behave": chance.choice(ENDS), "at": chance.randrange(7), "until_attempt": chance.choice((1, 1, 2))}
        # Attempts that end before those before them: what these recorded beyond must be gone.
        spec["earlier"] = chance.choice((0, 1, 2))
        budget = chance.choice((1, 2, 2, 3))
        job_id = rig.submit(steps=8, step_seconds=0.02, seed=chance.randrange(50), max_attempts=budget, **spec)
        if job_id is not None:
            rig.note(f"trainer: {spec['behave']}")
            expected[job_id] = _expected(spec, budget)
    rig.settle(60 + 5 * size, 3)
    for job_id, right in expected.items():
        state, failures, code = rig.rows("SELECT state, failures, error->>'code' FROM jobs WHERE id = %s", job_id)[0]
        found = (state, failures, code if right[2] else None)
        what = f"{job_id} is {found}, expected {right}"
        figures.expect(found == right, what, late=rig.lost_their_leases([job_id]))
    for _ in range(size // 2):
        load(rig, chance, 6)
        rig.keep_workers(3)
        rig.wait(rig.busy, 30, "a worker to run a job")
        time.sleep(chance.uniform(0, 0.3))
        worker = chance.choice(rig.busy() or rig.workers)
        for pid in worker.trainers():
            fault = "kill -9 trainer" if trains(pid) else "kill -9 spare trainer"
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                rig.note(fault)
    rig.settle(180, 3)
    figures.recovery += rig.tried_again("crashed")


def _expected(spec: dict[str, Any], budget: int) -> tuple[str, int, str | None]:
    if spec["behave"] in HOPELESS:
        return "failed", 1, HOPELESS[spec["behave"]]
    if spec["until_attempt"] < budget:
        return "succeeded", spec["until_attempt"], None
    return "failed", budget, "disk_full" if spec["behave"] == "retry" else "internal"


def spoilt(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """A checkpoint that is cut, flipped, emptied or without its manifest is passed over; with all of them spoilt it begins anew."""
    done = 0
    while done < size:
        rig.keep_workers(3)
        for worker in rig.workers:  # all three, before the first job is there, or it has ended when the last begins
            rig.wait(worker.is_ready, 60, "a worker to be ready")
        ids = [
            rig.submit(steps=30, step_seconds=0.08, checkpoint_every=3, max_attempts=3, seed=chance.randrange(50))
            for _ in range(3)
        ]
        rig.wait(
            lambda ids=ids: all(len(_checkpoints(rig, job_id)) >= 2 for job_id in ids), 60, "two checkpoints of each"
        )
        for worker in list(rig.workers):
            rig.kill_worker(worker)
        for job_id in ids:
            how = DAMAGES[done % len(DAMAGES)]
            rig.note(f"checkpoint: {how}")
            there = _checkpoints(rig, job_id)
            for folder in there if how == "all of them" else there[-1:]:
                _spoil(folder, "bit flip" if how == "all of them" else how, chance)
            done += 1
        rig.settle(60, 3)
    unhappy = rig.rows("SELECT count(*) FROM jobs WHERE state <> 'succeeded'")[0][0]
    figures.expect(unhappy == 0, f"{unhappy} jobs did not get over a spoilt checkpoint")


def _checkpoints(rig: Rig, job_id: str) -> list[Path]:
    found = (rig.data / "jobs" / job_id).glob("checkpoints-*/target-*")
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


def _spoil(folder: Path, how: str, chance: random.Random) -> None:
    file = folder / chance.choice(("arrays.npz", "state.json"))
    match how:
        case "cut":
            file.write_bytes(file.read_bytes()[: chance.randrange(1, file.stat().st_size)])
        case "bit flip":
            content = bytearray(file.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
        case "empty":
            file.write_bytes(b"")
        case "no manifest":
            (folder / "manifest.json").unlink()
        case _:
            shutil.rmtree(folder)


SCENARIOS = (
    Scenario(2, "trainer ends", ended, "the map from exit to outcome; the budget; rewind at a resume", 8, 140, 14),
    Scenario(13, "checkpoint spoilt", spoilt, "the checkpoint's hashes, and the others that are kept", 3, 100, 20),
)
