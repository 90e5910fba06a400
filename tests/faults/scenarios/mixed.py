"""15: everything at once, for as long as one likes (`./dev faults --soak MIN`)."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from app import queue
from tests.faults.figures import Figures
from tests.faults.rig import TERMINAL, Rig, Worker
from tests.faults.scenarios import Scenario, load
from tests.faults.scenarios.database import WAYS

WORKERS = 3
PAUSE = (0.2, 2.0)  # seconds between two faults
GROWTH = 1.5  # of the memory and the open files of a program that nobody hurts, after its first minute


def soaked(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """`size` minutes of faults drawn at random. The API and one worker are left alone and watched: neither may swell."""
    watched = rig.start_worker()
    thaws: list[tuple[float, Worker]] = []
    faults = _faults(rig, chance, watched, thaws)
    began, early = time.monotonic(), None
    while time.monotonic() < began + 60 * size:
        load(rig, chance, 10)
        rig.keep_workers(WORKERS)
        chance.choice(faults)()
        for due, worker in [entry for entry in thaws if entry[0] < time.monotonic()]:
            worker.thaw()
            thaws.remove((due, worker))
        time.sleep(chance.uniform(*PAUSE))
        if early is None and time.monotonic() > began + 60:
            early = _sizes(rig, watched)
    for _, worker in thaws:
        worker.thaw()
    rig.settle(240, WORKERS)
    late = _sizes(rig, watched)
    for name, before in (early or late).items():
        figures.notes[name] = f"{before} → {late[name]}"
        figures.expect(late[name] <= GROWTH * before, f"{name} grew from {before} to {late[name]}")


def _faults(
    rig: Rig, chance: random.Random, watched: Worker, thaws: list[tuple[float, Worker]]
) -> list[Callable[[], object]]:
    def victim() -> Worker | None:
        there = [worker for worker in rig.busy() if worker is not watched]
        return chance.choice(there) if there else None

    def kill() -> None:
        if worker := victim():
            rig.kill_worker(worker)

    def freeze() -> None:
        if worker := victim():
            rig.note("SIGSTOP worker past its lease")
            rig.record.deaths.append((worker.pid, time.time()))
            worker.freeze()
            thaws.append((time.monotonic() + rig.timing.lease + chance.uniform(1, 4), worker))

    def drain() -> None:
        if worker := victim():
            rig.note("SIGTERM worker")
            worker.drain()

    def kill_trainers() -> None:
        if worker := victim():
            rig.note("kill -9 trainers")
            for pid in worker.trainers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def hurt_database() -> None:
        rig.kill_postgres(chance.choice(WAYS))

    def empty_broker() -> None:
        rig.kill_broker(empty=True)
        rig.start_broker()

    def flush_broker() -> None:
        rig.note("broker FLUSHALL")
        queue._redis().flushall()

    def hang_broker() -> None:
        assert rig.broker is not None
        rig.note("broker hung")
        rig.broker.process.send_signal(signal.SIGSTOP)
        load(rig, chance, 12)
        time.sleep(chance.uniform(0, 2))
        rig.broker.process.send_signal(signal.SIGCONT)

    def wake_for_nothing() -> None:
        rig.note("20 wake-ups for nothing")
        queue.wake(20)

    often = [kill, freeze, kill_trainers, lambda: _cancel(rig, chance)]
    return [*often, *often, drain, hurt_database, empty_broker, flush_broker, hang_broker, wake_for_nothing]


def _cancel(rig: Rig, chance: random.Random) -> None:
    alive = rig.rows("SELECT id FROM jobs WHERE NOT state = ANY(%s)", list(TERMINAL))
    if alive:
        rig.note("cancel")
        rig.cancel(chance.choice(alive)[0], discard=chance.random() < 0.3)


def _sizes(rig: Rig, watched: Worker) -> dict[str, int]:
    assert rig.api is not None
    sizes = {}
    for name, pid in (("API", rig.api.process.pid), ("worker", watched.pid)):
        sizes[f"{name} KiB"] = (
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        )
        sizes[f"{name} open files"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return sizes


SCENARIOS = (Scenario(15, "soak", soaked, "all of them", 0, 0),)
