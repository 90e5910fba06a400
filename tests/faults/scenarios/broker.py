"""4, 9: a broker that dies, forgets, hangs, vanishes from the network or answers with errors, and one that is full of nonsense."""

from __future__ import annotations

import itertools
import json
import random
import signal
import time

from app import queue
from app.settings import settings
from tests.faults.figures import Figures
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario, chain

DEATH, LOSS = "kill -9, empty", "FLUSHALL"
REFUSALS = ("min-replicas-to-write", "maxmemory", "replicaof")
KINDS = (DEATH, LOSS, "hung", "half-open", "refusing", *4 * (DEATH, LOSS, LOSS), LOSS)
"""Rarely those that take a minute, but early enough for a short cut."""


def lost(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Dies and comes back empty, is emptied, hangs, is cut off without a word, or refuses, while jobs are submitted and wait.

    At work again: from the broker's return until a job that had waited for it began; three wait for two workers.
    """
    proxy = Proxy(rig.folder.run / "silent.sock", rig.folder.run / "valkey.sock")
    rig.keep_workers(2, BROKER_URL=f"redis+socket://{rig.folder.run / 'silent.sock'}")
    hang = 60 if size > 100 or rig.is_production else 3
    for kind in itertools.islice(itertools.cycle(KINDS), size):
        if kind != DEATH:  # which the rig itself counts
            rig.note(f"broker {kind}")
        assert rig.broker is not None
        if kind == LOSS:
            ids = [rig.submit(**chain(chance)) for _ in range(3)]
            queue._redis().flushall()
        elif kind == "hung":
            # Else the API may not ask a broker that has failed just now, and notice nothing.
            time.sleep(queue._BACK_OFF_SECONDS)
            rig.broker.process.send_signal(signal.SIGSTOP)
            ids = [rig.submit(**chain(chance)) for _ in range(3)]
            time.sleep(chance.uniform(0, hang))
            rig.broker.process.send_signal(signal.SIGCONT)
        elif kind == "half-open":
            proxy.silence()
            ids = [rig.submit(**chain(chance)) for _ in range(3)]
            time.sleep(chance.uniform(1, hang))
            proxy.resume()
        elif kind == "refusing":
            pids = [worker.pid for worker in rig.workers]
            setting = chance.choice(REFUSALS)
            _refuse(setting, True)
            ids = [rig.submit(**chain(chance)) for _ in range(3)]
            time.sleep(chance.uniform(1, hang))
            _refuse(setting, False)
            alive = [worker.pid for worker in rig.workers if worker.alive()]
            figures.expect(alive == pids, f"workers {pids} were there before the broker refused, {alive} after")
        else:
            rig.kill_broker(empty=True)
            ids = [rig.submit(**chain(chance)) for _ in range(3)]
            rig.start_broker()
        healed = time.time()
        rig.wait(lambda: _all_started(rig), 90, "idle workers to take up the jobs")
        figures.recovery += [
            float(started) - healed
            for (started,) in rig.rows("SELECT extract(epoch FROM started_at) FROM jobs WHERE id = ANY(%s)", ids)
            if started is not None and started > healed  # the others needed no broker
        ]
    rig.settle(120)
    proxy.close()
    slowest = max(rig.record.submit_seconds)
    figures.notes["slowest submit s"] = round(slowest, 2)
    figures.notes["submits"] = len(rig.record.submit_seconds)
    what = f"a submit took {slowest:.1f} s while the broker was away, allowed are {rig.patience * 2:.1f}"
    figures.expect(slowest <= rig.patience * 2, what, late=True)
    figures.expect(len(rig.record.submitted) == 3 * size, "a submit was refused while the broker was away")
    again = [job_id for (job_id,) in rig.rows("SELECT id FROM jobs WHERE attempt <> 1")]
    what = f"{len(again)} jobs ran more than once because of a broker"
    figures.expect(not again, what, late=rig.lost_their_leases(again))


def _refuse(setting: str, on: bool) -> None:
    """From now on the broker answers to writes with an error of that setting's, or no more."""
    broker = queue._redis()
    if setting == "replicaof":
        broker.replicaof("127.0.0.1", 9) if on else broker.replicaof("NO", "ONE")
    else:
        broker.config_set(setting, int(on))


def _all_started(rig: Rig) -> bool:
    return rig.rows("SELECT count(*) FROM jobs WHERE started_at IS NULL")[0][0] == 0


def nonsense(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Wake-ups by the thousand that nobody asked for, and messages that are none: no extra attempt, and the workers live."""
    rig.keep_workers(2)
    for worker in rig.workers:
        rig.wait(worker.is_ready, 60, "a worker to be ready")
    before = [worker.pid for worker in rig.workers]
    broker, name = queue._redis(), settings().queue
    queue.wake()
    broker.brpoplpush(name, "specimen", timeout=5) if broker.llen(name) else None
    specimen = json.loads(broker.lindex("specimen", 0) or broker.lindex(name, 0) or b"{}")
    for number in range(size):
        if number % 11 == 0:
            broker.lpush(name, _malformed(chance, specimen))
            rig.note("malformed message")
        else:
            queue.wake()
            rig.note("extra wake-up")
        if number % 100 == 0:
            rig.submit(**chain(chance))
    rig.submit(**chain(chance))
    rig.settle(120)
    rig.wait(lambda: not broker.llen(name), 120, "the queue to be eaten up")
    alive = [worker.pid for worker in rig.workers if worker.alive()]
    figures.expect(alive[: len(before)] == before, f"workers {before} were there before, {alive} after")
    extra = [job_id for (job_id,) in rig.rows("SELECT id FROM jobs WHERE attempt <> 1 OR state <> 'succeeded'")]
    what = f"{len(extra)} jobs had another attempt than their one"
    figures.expect(not extra, what, late=rig.lost_their_leases(extra))


def _malformed(chance: random.Random, specimen: dict[str, object]) -> bytes:
    headers = specimen.get("headers", {})
    assert isinstance(headers, dict)
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.randrange(1, 500))
        case 1:
            return b"{}"
        case 2:
            return b'["bequest.wake"]'
        case 3:  # a task that there is not
            return json.dumps({**specimen, "headers": {**headers, "task": "os.system"}}).encode()
        case 4:  # a body that is no call
            return json.dumps({**specimen, "body": "bm90IGpzb24="}).encode()
        case _:  # arguments that wake does not take
            return json.dumps({**specimen, "body": "W1sxLCAyXSwge30sIHt9XQ=="}).encode()


SCENARIOS = (
    Scenario(
        4, "broker lost", lost, "the sweep's wake-ups; a broker's failure is never an error of a submit", 7, 170, 20
    ),
    Scenario(9, "broker nonsense", nonsense, "a message is a bare wake-up", 220, 11_000),
)
