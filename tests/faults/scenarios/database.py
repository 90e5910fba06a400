"""5, 6: a Postgres that is killed under load, and connections that break after a statement was executed and before its answer."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from tests.faults.figures import Figures
from tests.faults.rig import TERMINAL, Rig
from tests.faults.scenarios import Scenario, chain, load

WAYS = ("kill -9", "kill -9 backend", "fast stop", "immediate stop")
CLIENTS = 4
RARE_SECONDS = 0.3
OFTEN = 100  # times in a run
NOT_OURS = ("ping", ";", "SHOW", "LISTEN", "BEGIN", "ROLLBACK", "SELECT pg_catalog", "SET")


def killed(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Ends in four ways while clients submit without pause and workers record; not one acknowledged job may be missing.

    At work again: a submission that was sent after Postgres answered again has been acknowledged.
    """
    stop = threading.Event()
    acknowledged: list[list[str]] = [[] for _ in range(CLIENTS)]
    acknowledged_of = [0.0]  # when the newest submission was sent that has been acknowledged

    def submit(mine: list[str]) -> None:
        while not stop.is_set():
            # No worker here has a GPU: these jobs only have to be there. What runs is submitted below.
            sent = time.monotonic()
            job_id = rig.submit(excused=True, device="gpu", steps=1)
            if job_id is None:
                time.sleep(0.05)
            else:
                acknowledged_of[0] = sent
                mine.append(job_id)

    clients = [threading.Thread(target=submit, args=(mine,), daemon=True) for mine in acknowledged]
    for client in clients:
        client.start()
    for number in range(size):
        for _ in range(3):
            rig.submit(excused=True, **chain(chance))
        rig.keep_workers(2)
        time.sleep(chance.uniform(0.3, 2))
        began = time.monotonic()
        rig.kill_postgres(WAYS[number % len(WAYS)])
        back = time.monotonic()
        rig.wait(lambda back=back: acknowledged_of[0] > back, 60, "submits to be acknowledged again")
        figures.recovery.append(time.monotonic() - began)
    stop.set()
    for client in clients:
        client.join()
    figures.notes["acknowledged submits"] = len(rig.record.submitted)
    enders = [
        threading.Thread(target=lambda mine=mine: [rig.cancel(job_id) for job_id in mine]) for mine in acknowledged
    ]
    for ender in enders:
        ender.start()
    for ender in enders:
        ender.join()
    # What was committed and never acknowledged may be there as well; nobody waits for it.
    unknown = rig.rows("SELECT id FROM jobs WHERE device = 'gpu' AND state NOT IN ('succeeded', 'failed', 'cancelled')")
    figures.notes["committed, never acknowledged"] = len(unknown)
    for (job_id,) in unknown:
        rig.cancel(job_id)
    rig.settle(180)


def timed_out(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Statements of every kind that API and workers send, the rarest first: executed and then unanswered, or never delivered."""
    proxy = rig.proxy("cut")
    due: list[float] = []  # since when a cut is due, if one is
    cuts: Counter[str] = Counter()
    one_at_a_time = threading.Lock()

    def often() -> list[int]:
        """How often each kind was cut that is said again and again."""
        return [count for kind, count in cuts.items() if proxy.seen[kind] >= OFTEN]

    def strike(kind: str, pid: int) -> str:
        if kind.startswith(NOT_OURS):
            return "pass"
        with one_at_a_time:
            cuts[kind] += 0
            # What is rarely said is waited for a little, not for ever; what is said once, at a start, sets no measure.
            rare = cuts[kind] <= min(often(), default=0) + 2
            if not due or not (rare or time.monotonic() > due[0] + RARE_SECONDS):
                return "pass"
            due.clear()
            cuts[kind] += 1
        verdict = "answer" if cuts[kind] % 2 else "cut"
        rig.note(f"{verdict}: {kind}")
        return verdict

    proxy.strike = strike
    rig.restart_api(**rig.through("cut"))
    while cuts.total() < size:
        load(rig, chance, 6)
        rig.keep_workers(2, **rig.through("cut"))
        if chance.random() < 0.2:
            _cancel_one(rig, chance)
        due[:] = due or [time.monotonic()]
        time.sleep(chance.uniform(0.2, 0.8))
    due.clear()
    rig.settle(240)
    proxy.close()
    rig.restart_api()
    figures.notes["kinds of statements"], figures.notes["of them said often"] = len(cuts), len(often())
    figures.notes["cuts of the rarest of these"] = min(often(), default=0)
    figures.expect(min(often(), default=0) > 0 or size < 100, "a kind of statement that is said often was never cut")


def _cancel_one(rig: Rig, chance: random.Random) -> None:
    alive = rig.rows("SELECT id FROM jobs WHERE NOT state = ANY(%s)", list(TERMINAL))
    if alive:
        rig.cancel(chance.choice(alive)[0], excused=True)


SCENARIOS = (
    Scenario(
        5, "database killed", killed, "an answer only after the commit; a retry of what was not committed", 4, 50, 20
    ),
    Scenario(
        6, "execute, then time out", timed_out, "every write may be repeated; a last word is spoken once", 16, 600, 20
    ),
)
