"""1, 3, 14: workers that are killed, frozen and told to leave."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Sequence

from tests.faults.figures import Figures
from tests.faults.rig import Rig, Worker
from tests.faults.scenarios import Scenario, load

MOMENTS = (
    "INSERT INTO attempts",  # a claim
    "UPDATE jobs lease_until",  # a beat
    "INSERT INTO metrics",
    "INSERT INTO artifacts",  # the blob is in the store, its row is not
    "INSERT INTO models",
    "UPDATE attempts ended_at",  # a last word
    "COMMIT",
)


def killed(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """kill -9 of workers at random moments, and at each kind of statement, before it reached the database or just after."""
    proxy = rig.proxy("kill")
    deadly: list[tuple[str, str]] = []

    def strike(kind: str, pid: int) -> str:
        if deadly and kind == deadly[0][0] and pid in {worker.pid for worker in rig.workers}:
            verdict = deadly.pop()[1]
            rig.record.deaths.append((pid, time.time()))
            rig.note(f"kill -9 worker at {kind}")
            os.kill(pid, signal.SIGKILL)
            return verdict
        return "pass"

    proxy.strike = strike
    while rig.record.faults.total() < size:
        load(rig, chance, 8)
        rig.keep_workers(3, **rig.through("kill"))
        if chance.random() < 0.5:
            deadly[:] = [(chance.choice(MOMENTS), chance.choice(("pass", "cut")))]
            until = time.monotonic() + 5
            while deadly and time.monotonic() < until:
                time.sleep(0.02)
        elif victims := rig.busy():
            time.sleep(chance.uniform(0, 1))
            rig.kill_worker(chance.choice(victims))
        else:
            time.sleep(0.1)
    deadly.clear()
    rig.settle(120 + 4 * rig.timing.lease, 3)
    proxy.close()
    figures.recovery += rig.requeued_after()
    allowed = rig.timing.lease + rig.timing.sweep + 3
    figures.expect(
        max(figures.recovery, default=0) <= allowed, f"a job was taken back only after more than {allowed} s"
    )


def frozen(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """SIGSTOP of a worker past its lease, SIGCONT while another attempt runs or has ended; and of a trainer alone."""
    asleep: list[tuple[float, list[int]]] = []
    done = 0
    while done < size or asleep:
        load(rig, chance, 8 if done < size else 0)
        rig.keep_workers(2)
        if done < size and len(asleep) < 3 and (victims := rig.busy()):
            victim = chance.choice(victims)
            done += 1
            if chance.random() < 0.2:
                rig.note("SIGSTOP trainer")
                pids, seconds = victim.trainers(), chance.uniform(1, rig.timing.lease)
            else:
                rig.note("SIGSTOP worker past its lease")
                rig.record.deaths.append((victim.pid, time.time()))
                victim.frozen = True
                pids, seconds = [victim.pid], rig.timing.lease + chance.uniform(1.5, 4)
            _signal(pids, signal.SIGSTOP)
            asleep.append((time.monotonic() + seconds, pids))
        for due, pids in [entry for entry in asleep if entry[0] < time.monotonic()]:
            _signal(pids, signal.SIGCONT)
            asleep.remove((due, pids))
            for worker in rig.workers:
                worker.frozen = worker.frozen and worker.pid not in pids
        time.sleep(0.1)
    rig.settle(120 + 4 * rig.timing.lease)
    figures.recovery += rig.requeued_after()


def cut_off(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """The link to the database goes silent: before the lease is over the trainer is dead, although its worker is told nothing."""
    proxy = rig.proxy("wire")
    for _ in range(size):
        worker = rig.start_worker(**rig.through("wire"))
        job_id = rig.submit(steps=150, step_seconds=0.05, seed=chance.randrange(50))
        trains = f"/{job_id}/"
        rig.wait(lambda worker=worker, trains=trains: _training(worker, trains), 30, "the worker to train")
        time.sleep(chance.uniform(0.2, rig.timing.lease / 2))
        rig.note("link to the database silent")
        rig.record.deaths.append((worker.pid, time.time()))
        proxy.silence()
        time.sleep(rig.timing.lease)
        figures.expect(
            not _training(worker, trains), f"{job_id} is still trained by a worker that is cut off from its lease"
        )
        rig.keep_workers(2)
        rig.wait(lambda: rig.busy() or not rig.unfinished(), 60, "another worker to take the job")
        proxy.resume()
        rig.settle(60)
        rig.stop_workers()
    proxy.close()
    figures.recovery += rig.requeued_after()


def _training(worker: Worker, job: str) -> bool:
    """Whether one of its trainers has that job, by the log that it writes to."""
    for pid in worker.trainers():
        with contextlib.suppress(OSError):
            if job in os.readlink(f"/proc/{pid}/fd/1"):  # noqa: PTH115
                return True
    return False


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def drained(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """SIGTERM to workers in a loop, as a rolling upgrade does: nobody is charged for it, and each leaves in time."""
    slowest = 0.0
    for _ in range(size):
        load(rig, chance, 8)
        rig.keep_workers(3)
        rig.wait(rig.busy, 60, "a worker to run a job")
        time.sleep(chance.uniform(0, 0.5))
        leaving = chance.choice(rig.busy() or rig.workers)
        rig.note("SIGTERM worker")
        began = time.monotonic()
        leaving.drain()
        rig.wait(lambda worker=leaving: not worker.alive(), rig.timing.grace + 60, "a worker to leave")
        slowest = max(slowest, time.monotonic() - began)
    rig.settle(120)
    figures.notes["slowest exit s"] = round(slowest, 2)
    figures.expect(
        slowest <= rig.timing.grace + 5, f"a worker took {slowest:.1f} s to leave, allowed are {rig.timing.grace + 5}"
    )
    charged = rig.rows("SELECT count(*) FROM jobs WHERE failures > 0")[0][0]
    figures.expect(charged == 0, f"{charged} jobs were charged a failure by a drain")


SCENARIOS = (
    Scenario(
        1,
        "worker killed",
        killed,
        "the lease and the sweep; fence and rewind; PDEATHSIG; rows only for durable blobs",
        8,
        500,
        20,
    ),
    Scenario(
        3, "worker frozen", frozen, "beat and fence by attempt, state and lease; the triggers behind them", 4, 100, 20
    ),
    Scenario(3, "worker cut off", cut_off, "the fuse, which needs no database", 1, 20, 3),
    Scenario(14, "rolling drain", drained, "the drain's checkpoint, and that it charges nothing", 3, 100, 20),
)
