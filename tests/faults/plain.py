"""What most services do: a row for the job, its id in a Celery message, `acks_late`. For contrast only (`contrast.py`).

Written as its documentation advises: the message is acknowledged after the work, a lost pool process puts it back, each run
clears what an earlier one left, and the knobs that find a dead worker's messages are as quick as they can be set. The job is the same
chain as the service's own (`methods/chain.py`).
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import psycopg
from celery import Celery

from tests.faults.methods import chain

SCHEMA = """
CREATE TABLE jobs (id text PRIMARY KEY, seed int, steps int, step_seconds float, state text NOT NULL DEFAULT 'queued',
  attempt int NOT NULL DEFAULT 0, worker_id text, started_at timestamptz, finished_at timestamptz);
CREATE TABLE runs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_id text REFERENCES jobs,
  began timestamptz NOT NULL DEFAULT clock_timestamp(), ended timestamptz);
CREATE TABLE metrics (job_id text REFERENCES jobs, run bigint REFERENCES runs, step int, value float,
  written timestamptz NOT NULL DEFAULT clock_timestamp());
"""
QUEUE = "plain"

app = Celery("plain", broker=os.environ.get("BROKER_URL"), set_as_current=False)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("PLAIN_VISIBILITY_SECONDS", "3600")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
    },
)


def submit(connection: psycopg.Connection[Any], job_id: str, spec: dict[str, Any]) -> None:
    """The row, then the message."""
    connection.execute(
        "INSERT INTO jobs (id, seed, steps, step_seconds) VALUES (%s, %s, %s, %s)",
        (job_id, spec["seed"], spec["steps"], spec["step_seconds"]),
    )
    train.delay(job_id)


@app.task(name="plain.train", autoretry_for=(psycopg.Error,), max_retries=10, default_retry_delay=1)
def train(job_id: str) -> None:
    database = _database()
    worker_id = f"plain-{os.getppid()}-0"
    row = database.execute(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker_id = %s, started_at = coalesce(started_at, clock_timestamp())"
        " WHERE id = %s RETURNING seed, steps, step_seconds",
        (worker_id, job_id),
    ).fetchone()
    assert row is not None
    seed, steps, seconds = row
    run = database.execute("INSERT INTO runs (job_id) VALUES (%s) RETURNING id", (job_id,)).fetchone()[0]  # type: ignore[index]
    database.execute("DELETE FROM metrics WHERE job_id = %s", (job_id,))
    for step, value in enumerate(chain.values(seed, "target", steps), 1):
        time.sleep(seconds)
        database.execute(
            "INSERT INTO metrics (job_id, run, step, value) VALUES (%s, %s, %s, %s)", (job_id, run, step, value)
        )
    database.execute("UPDATE runs SET ended = clock_timestamp() WHERE id = %s", (run,))
    database.execute("UPDATE jobs SET state = 'succeeded', finished_at = clock_timestamp() WHERE id = %s", (job_id,))


@cache
def _database() -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
