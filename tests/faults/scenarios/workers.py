"""1, 3, 14: workers that are killed, frozen and told to leave."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence

from tests.faults.figures import Figures
from tests.faults.rig import Rig, Worker
from tests.faults.scenarios import Scenario, load, trains

MOMENTS = (
    "INSERT INTO attempts",  # a claim
    "UPDATE jobs lease_until",  # a heartbeat
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
            rig.strike_dead(pid, f"kill -9 worker at {kind}")
            return verdict
        return "pass"

    proxy.strike = strike
    while rig.record.faults.total() < size:
        load(rig, chance, 8)
        rig.keep_workers(3, **rig.through("kill"))
        if chance.random() < 0.5:
            deadly[:] = [(chance.choice(MOMENTS), chance.choice(("pass", "cut")))]
            _until(lambda: not deadly, 5)
        elif victims := rig.busy():
            time.sleep(chance.uniform(0, 1))
            rig.kill_worker(chance.choice(victims))
        else:
            time.sleep(0.1)
    deadly.clear()
    rig.settle(120 + 4 * rig.timing.lease, 3)
    proxy.close()
    _expect_in_time(rig, figures)


TRAINER, WORKER, WRITER = "SIGSTOP trainer", "SIGSTOP worker past its lease", "SIGSTOP worker about to write"


def frozen(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """SIGSTOP of a worker past its lease, SIGCONT while another attempt runs or has ended; and of a trainer alone.

    A worker that wakes up anywhere mostly asks for its lease first. So half are stopped at the BEGIN of a transaction, which is
    mostly a write's: when they wake up they write, late.
    """
    proxy = rig.proxy("frozen")
    aimed: dict[int, threading.Event] = {}
    asleep: list[tuple[float, list[int], threading.Event]] = []
    done = 0

    def strike(kind: str, pid: int) -> str:
        if kind == "BEGIN" and (awake := aimed.pop(pid, None)):
            _signal([pid], signal.SIGSTOP)
            awake.wait()
        return "pass"

    proxy.strike = strike
    while done < size or asleep:
        load(rig, chance, 8 if done < size else 0)
        rig.keep_workers(2, **rig.through("frozen"))
        if done < size and len(asleep) < 3 and (victims := rig.busy()):
            victim, awake = chance.choice(victims), threading.Event()
            fault = chance.choice((TRAINER, WORKER, WORKER, WRITER, WRITER))
            pids, seconds = [victim.pid], rig.timing.lease + chance.uniform(1.5, 4)
            if fault == TRAINER:
                pids, seconds = victim.trainers(), chance.uniform(1, rig.timing.lease)
            if fault == WRITER:
                aimed[victim.pid] = awake
                _until(lambda pid=victim.pid: pid not in aimed, 2)
                if aimed.pop(victim.pid, None):
                    continue  # it has not written meanwhile
            else:
                _signal(pids, signal.SIGSTOP)
            done += 1
            rig.note(fault)
            if fault != TRAINER:
                rig.record.deaths.append((victim.pid, time.time()))
                victim.frozen = True
            asleep.append((time.monotonic() + seconds, pids, awake))
        for entry in [entry for entry in asleep if entry[0] < time.monotonic()]:
            _, pids, awake = entry
            awake.set()
            _signal(pids, signal.SIGCONT)
            asleep.remove(entry)
            for worker in rig.workers:
                worker.frozen = worker.frozen and worker.pid not in pids
        time.sleep(0.1)
    rig.settle(120 + 4 * rig.timing.lease)
    late = len(rig.said_by_workers("write_refused"))
    tried = late > 0 or rig.record.faults[WRITER] < 4
    figures.expect(tried, "no worker that woke up tried to write, so no fence was tried", late=True)
    proxy.close()


def cut_off(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """The link to the database goes silent: before the lease is over the trainer is dead, although its worker is told nothing.

    Half of the links are back at once, when the lease still runs: it may not be extended, for nobody trains.
    """
    proxy = rig.proxy("wire")
    dead = rig.timing.lease - min(5, rig.timing.lease / 6) + 0.4 * rig.patience  # the watchdog's time, and some
    for _ in range(size):
        worker = rig.start_worker(**rig.through("wire"))
        job_id = rig.submit(steps=int(20 * (rig.timing.lease + 5)), step_seconds=0.05, seed=chance.randrange(50))
        log = f"/{job_id}/"
        rig.wait(lambda worker=worker, log=log: _training(worker, log), 30, "the worker to train")
        time.sleep(chance.uniform(0.2, rig.timing.lease / 2))
        rig.note("link to the database silent")
        rig.record.deaths.append((worker.pid, time.time()))
        worker.frozen = True  # else it would count among those that work
        proxy.silence()
        _until(lambda worker=worker, log=log: not _training(worker, log), dead)
        figures.expect(
            not _training(worker, log), f"{job_id} is still trained {dead:.1f} s after the last beat", late=True
        )
        if chance.random() < 0.5:
            figures.notes["links back within the lease"] = figures.notes.get("links back within the lease", 0) + 1
            proxy.resume()
        rig.keep_workers(2)
        rig.wait(lambda job_id=job_id: _taken_again(rig, job_id), 60, "another attempt at the job")
        proxy.resume()
        rig.settle(60 + rig.timing.lease)
        rig.stop_workers()
    proxy.close()
    _expect_in_time(rig, figures)


def _expect_in_time(rig: Rig, figures: Figures) -> None:
    slowest = max(rig.taken_up_again()[0], default=0)
    allowed = rig.timing.lease + rig.timing.sweep + 3 * rig.patience
    what = f"a job was queued again only after {slowest:.1f} s, allowed are {allowed}"
    figures.expect(slowest <= allowed, what, late=True)


def _taken_again(rig: Rig, job_id: str) -> bool:
    return bool(rig.rows("SELECT 1 FROM jobs WHERE id = %s AND (attempt > 1 OR finished_at IS NOT NULL)", job_id))


def _training(worker: Worker, log: str) -> bool:
    return any(trains(pid, log) for pid in worker.trainers())


def _until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)


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
    allowed = rig.timing.grace + 5 * rig.patience
    what = f"a worker took {slowest:.1f} s to leave, allowed are {allowed:.1f}"
    figures.expect(slowest <= allowed, what, late=True)
    charged = [job_id for (job_id,) in rig.rows("SELECT id FROM jobs WHERE failures > 0")]
    what = f"{len(charged)} jobs were charged a failure by a drain"
    figures.expect(not charged, what, late=rig.lost_their_leases(charged))


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
    Scenario(3, "worker cut off", cut_off, "the lease watchdog, which needs no database", 1, 20, 3),
    Scenario(14, "rolling drain", drained, "the drain's checkpoint, and that it charges nothing", 3, 100, 20),
)
