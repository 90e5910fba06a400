"""The same faults done to a plain `acks_late` Celery service: `python -m tests.faults.contrast [--seed N] [--full] [--json FILE]`.

The scenarios 1, 3 and 4 are the harness's own, called with a rig whose programs are those of `plain.py`. Its broker hands out
a message again after the lease's 3 s, where Celery's own setting is an hour. The exit status says only whether the comparison ran.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from kombu.exceptions import OperationalError

from app import embedded
from tests.faults import plain
from tests.faults.__main__ import machine
from tests.faults.figures import Figures, table
from tests.faults.rig import Rig, rig, seeded
from tests.faults.scenarios import broker, workers
from tests.faults.timing import FAST


def long_jobs(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """No fault at all: jobs that take thrice the lease, and idle workers. So does a training of three hours with Celery's own setting."""
    rig.keep_workers(3)
    for seed in range(size):
        rig.submit(seed=seed, steps=9, step_seconds=rig.timing.lease / 3)
    rig.settle(120, 3)


SCENARIOS: tuple[tuple[str, Callable[[Rig, random.Random, int, Figures], None], int, int], ...] = (
    ("worker killed", workers.killed, 8, 100),
    ("worker frozen", workers.frozen, 4, 40),
    ("broker lost", broker.lost, 7, 34),
    ("no fault, jobs of three leases", long_jobs, 3, 12),
)
PATIENCE_SECONDS = 15.0


class Plain(Rig):
    """The harness around the other service."""

    def start(self) -> None:
        self.environment |= {"PLAIN_VISIBILITY_SECONDS": str(self.timing.lease)}
        os.environ.update(self.environment)
        plain.app.conf.broker_url = self.environment["BROKER_URL"]
        self.postgres = embedded.start_postgres(self.folder)
        self.broker = embedded.start_valkey(self.folder)
        with self.connection() as connection:
            connection.execute(plain.SCHEMA)

    def command(self) -> tuple[str, ...]:
        quiet = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")
        return (sys.executable, "-m", "celery", "-A", "tests.faults.plain", "worker", "-c", "1", *quiet)

    def submit(self, excused: bool = False, key: str | None = None, **spec: Any) -> str | None:
        """As the service's own: what is asked of a plain service beyond its chain is left out."""
        job_id = f"job_{len(self.record.submit_seconds)}"
        began = time.monotonic()
        with contextlib.suppress(psycopg.Error, OperationalError), self.connection() as connection:
            plain.submit(connection, job_id, spec)
            self.record.submitted[job_id] = spec  # else the client is told, and knows that it has no job
        self.record.submit_seconds.append(time.monotonic() - began)
        return job_id if job_id in self.record.submitted else None

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Goes on where the service does not come round: what it has lost is counted at the end."""
        with contextlib.suppress(TimeoutError):
            return super().wait(condition, min(seconds, PATIENCE_SECONDS), what)
        return None

    def waits_for_retry(self) -> bool:
        return False  # it knows none

    def settle(self, seconds: float, workers: int = 2) -> None:
        super().settle(min(seconds, 4 * PATIENCE_SECONDS), workers)

    def taken_up_again(self) -> tuple[list[float], list[float]]:
        """For each death: the seconds until a job that was begun before it, and had not ended, was begun once more. It has no queue
        of its own to say when that was to be."""
        runs = self.rows("SELECT job_id, extract(epoch FROM began)::float, extract(epoch FROM ended)::float FROM runs")
        found = []
        for _, died in self.record.deaths:
            cut = {job_id for job_id, began, ended in runs if began < died and ended is None}
            found += [min((began for job_id, began, _ in runs if job_id in cut and began > died), default=died) - died]
        return [], [seconds for seconds in found if seconds]


def judged(service: Rig, figures: Figures) -> None:
    """What the checker asks, of this service's tables."""
    time.sleep(4 * service.timing.lease)  # what has been handed out twice comes to its end
    service.stop_workers()
    figures.jobs = service.rows("SELECT count(*) FROM jobs")[0][0]
    figures.faults = service.record.faults.total()
    figures.lost = service.rows(
        "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND finished_at IS NULL", list(service.record.submitted)
    )[0][0]
    figures.doubled = service.rows(
        "SELECT count(*) FROM (SELECT job_id FROM runs WHERE ended IS NOT NULL GROUP BY job_id HAVING count(*) > 1) AS twice"
    )[0][0]
    figures.stale_accepted = service.rows(
        "SELECT count(*) FROM metrics JOIN runs AS later ON later.job_id = metrics.job_id AND later.id > metrics.run"
        " WHERE metrics.written > later.began"
    )[0][0]
    broken = service.rows(
        "SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL AND"
        " (SELECT array_agg(step ORDER BY step) FROM metrics WHERE job_id = jobs.id) IS DISTINCT FROM"
        " (SELECT array_agg(step) FROM generate_series(1, jobs.steps) AS step)"
    )[0][0]
    figures.recovery += service.taken_up_again()[1]
    figures.notes["ended with missing or doubled metric rows"] = broken
    figures.notes |= dict(sorted(service.record.faults.items()))
    for count, what in ((figures.lost, "lost"), (figures.doubled, "doubled"), (broken, "with broken metrics")):
        if count:
            figures.violations.append(f"{count} jobs {what}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.faults.contrast", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    asked = parser.parse_args(arguments)
    print(f"a plain acks_late service; {machine()}; seed {asked.seed}", flush=True)
    rows = []
    with rig(FAST, rig_type=Plain) as service:
        for name, scenario, short, full in SCENARIOS:
            figures = Figures(f"{name} (plain Celery)", asked.seed)
            service.reset()
            began = time.monotonic()
            scenario(service, seeded(asked.seed, name), full if asked.full else short, figures)
            figures.violations.clear()  # promises of ours; what is counted is below
            judged(service, figures)
            figures.seconds = time.monotonic() - began
            rows.append(figures)
            print(table([figures]).splitlines()[-1], flush=True)
    print("\n" + table(rows))
    for row in rows:
        print(f"{row.scenario}: {row.notes}")
    if asked.json:
        Path(asked.json).write_text(
            json.dumps({"machine": machine(), "seed": asked.seed, "figures": [row.plain() for row in rows]}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
