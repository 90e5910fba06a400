"""How fast metrics get into Postgres: `python -m benchmarks.ingest [--rows 2000000] [--rounds 5]`.

A job's rows come as a worker writes them, ten transactions a second at most, each behind the attempt's fence. A fit looks at its
validation rows at most 500 times, evenly, the last step always among them, so a job makes no more rows however fast it steps. Told are
rows a second into an empty table and into one that holds `--rows` of other jobs, and the most that a job of five tasks can make.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from app import db, embedded, ids, jobs, metrics
from app.db import transaction
from app.settings import settings
from app.tables import Job

ROWS = 2_000_000
NAMES = [f"task{task}_{what}" for task in range(5) for what in ("loss", "weight", "val_accuracy")] + ["loss", "rate"]
LOOKS, SECONDS = 50, 0.1
"""Of a transaction: a call of 16 steps and a look at validation rows take 2 ms at the very least."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="of other jobs, in the fuller table")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    sys.stdout.write("\n".join(section(asked.rounds, asked.rows)) + "\n")


def section(rounds: int, rows: int = ROWS) -> list[str]:
    """Lines of Markdown."""
    with database():
        empty = [ingested() for _ in range(rounds)]
        fill(rows)
        full = [ingested() for _ in range(rounds)]
    alone, beside = statistics.median(empty), statistics.median(full)
    return [
        "## Metrics into Postgres",
        "",
        " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        "",
        f"`python -m benchmarks.ingest`, {rounds} rounds.",
        "",
        f"| rows a second into an empty table | beside {rows:,} of other jobs | ratio | made by a job of five tasks, at most |",
        "|---|---|---|---|",
        f"| {alone:,.0f} | {beside:,.0f} | {beside / alone:.2f} | {LOOKS * len(NAMES) / SECONDS:,.0f}, and {500 * len(NAMES):,} in a fit |",
    ]


@contextmanager
def database() -> Iterator[None]:
    """A Postgres of its own, which is gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="bequest-", dir=embedded.short_folder()))
    try:
        with embedded.folder(home) as folder:
            server = embedded.start_postgres(folder)
            try:
                os.environ |= {"DATABASE_URL": embedded.database_url(folder), "BEQUEST_DATA": str(home)}
                settings.cache_clear()
                db.engine.cache_clear()
                db.migrate()
                yield
            finally:
                db.engine().dispose()
                server.stop(10)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def ingested(transactions: int = 40) -> float:
    """Rows a second of one job, in transactions as a worker's."""
    with transaction() as session:
        job = Job(
            id=ids.new("job"),
            kind="transfer",
            spec={},
            resolved_spec={},
            state="queued",
            max_seconds=60,
            max_attempts=1,
        )
        session.add(job)
    claim = jobs.claim("benchmark")
    assert claim is not None
    begun = time.perf_counter()
    for number in range(transactions):
        looks = [(number * LOOKS + look, dict.fromkeys(NAMES, 0.5)) for look in range(LOOKS)]
        with transaction() as session:
            jobs.fence(session, claim)
            metrics.record(session, claim.job_id, claim.attempt, looks)
    return transactions * LOOKS * len(NAMES) / (time.perf_counter() - begun)


def fill(rows: int) -> None:
    """Metrics of jobs of long ago, a hundred of them."""
    with transaction() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))  # past the fence: no attempt makes these
        session.execute(
            text(
                "INSERT INTO jobs (id, kind, spec, resolved_spec, state, max_seconds, max_attempts) "
                "SELECT 'job_old' || n, 'transfer', '{}', '{}', 'queued', 60, 1 FROM generate_series(1, 100) n"
            )
        )
        session.execute(
            text(
                "INSERT INTO metrics (job_id, name, step, attempt, value) SELECT 'job_old' || (n % 100 + 1), "
                "'loss' || (n / 100 % 17), n / 1700, 1, random() FROM generate_series(0, :rows - 1) n"
            ),
            {"rows": rows},
        )
        session.execute(text("UPDATE jobs SET run_after = now() + interval '1 day' WHERE id LIKE 'job_old%'"))


if __name__ == "__main__":
    main()
