"""A program that errs: what the database itself must refuse, whatever writes to it. One statement for each backstop.

Each statement is tried twice: as it is, when it must be refused; and with its backstop taken away (a CHECK, an index, a trigger, one
sentence of a trigger's function), when it must go through. So no backstop hides behind another, and each is proved to be needed.
All of it happens in transactions that are rolled back.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.faults.figures import Figures
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario

TABLES = (
    "jobs", "attempts", "events", "metrics", "artifacts", "models", "transitions", "pipelines", "pipeline_steps",
)  # fmt: skip
COLUMNS = "INSERT INTO jobs (id, kind, spec, resolved_spec, max_seconds, max_attempts, state"
EVENT = "INSERT INTO events (job_id, seq, attempt, type) VALUES"
METRIC = "INSERT INTO metrics (job_id, name, step, attempt, value) VALUES"
FILE = "INSERT INTO artifacts (job_id, name, attempt, sha256, bytes, media_type) VALUES"
MODEL = "INSERT INTO models (id, job_id, attempt, role, name, version, manifest, sha256, bytes) VALUES"


@dataclass(frozen=True)
class Backstop:
    """`name` is a constraint, an index or a trigger; or "function: words of its exception". `prepare` comes before `statement`.

    Jobs there: `queued`; `running` in attempt 2, with a metric, a file and a model; `ended`, which succeeded. Pipelines: `first`,
    of which `running` is a step, and `second`.
    """

    name: str
    statement: str
    prepare: str = ""


BACKSTOPS = (
    Backstop("jobs_state", "UPDATE jobs SET state = 'asleep' WHERE id = 'queued'", "DROP TRIGGER jobs_guard ON jobs"),
    Backstop("jobs_wanted", "UPDATE jobs SET wanted = 'sleep' WHERE id = 'running'"),
    Backstop("jobs_wanted_while_running", "UPDATE jobs SET wanted = 'cancel' WHERE id = 'queued'"),
    Backstop("jobs_lease_while_running", "UPDATE jobs SET lease_until = NULL WHERE id = 'running'"),
    Backstop("jobs_finished_when_terminal", "UPDATE jobs SET finished_at = now() WHERE id = 'queued'"),
    Backstop("jobs_error_when_failed", "UPDATE jobs SET error = '{}' WHERE id = 'queued'"),
    Backstop("jobs_counts", "UPDATE jobs SET failures = 3 WHERE id = 'running'"),
    Backstop("jobs_idempotency", "UPDATE jobs SET idempotency_key = 'k' WHERE id = 'queued'"),
    Backstop(
        "jobs_idempotency_key",
        "UPDATE jobs SET idempotency_key = 'k', idempotency_hash = 'h' WHERE id IN ('queued', 'running')",
    ),
    Backstop("attempts_ended", "UPDATE attempts SET outcome = 'drained' WHERE job_id = 'running' AND attempt = 2"),
    Backstop("attempts_one_open", "UPDATE attempts SET outcome = NULL, ended_at = NULL WHERE job_id = 'running'"),
    Backstop("jobs_begin", f"{COLUMNS}, lease_until) VALUES ('x', 'x', '{{}}', '{{}}', 1, 1, 'running', now())"),
    Backstop("jobs_guard: cannot begin as", f"{COLUMNS}) VALUES ('x', 'x', '{{}}', '{{}}', 1, 1, 'paused')"),
    Backstop("jobs_guard", "UPDATE jobs SET started_at = now() WHERE id = 'ended'"),
    Backstop("jobs_guard: has ended as", "UPDATE jobs SET started_at = now() WHERE id = 'ended'"),
    Backstop(
        "jobs_guard: attempt of job",
        "UPDATE jobs SET attempt = 7, state = 'running', lease_until = now() WHERE id = 'queued'",
    ),
    Backstop("jobs_guard: grows exactly when", "UPDATE jobs SET attempt = 3 WHERE id = 'running'"),
    Backstop(
        "jobs_guard: cannot go from",
        "UPDATE jobs SET state = 'succeeded', finished_at = now() WHERE id = 'queued'",
    ),
    Backstop("events_fence", f"{EVENT} ('running', 99, 1, 'checkpoint')"),
    Backstop("events_fence: may not write events", f"{EVENT} ('running', 99, 1, 'checkpoint')"),
    Backstop("events_fence: has happened", "UPDATE events SET type = 'warning' WHERE job_id = 'running' AND seq = 1"),
    Backstop("metrics_fence_insert", f"{METRIC} ('running', 'x', 1, 1, 0)"),
    Backstop("metrics_fence_update", "UPDATE metrics SET attempt = 1 WHERE job_id = 'running'"),
    Backstop("artifacts_fence_insert", f"{FILE} ('ended', 'x', 1, 'x', 1, 'x')"),
    Backstop("artifacts_fence_update", "UPDATE artifacts SET attempt = 1 WHERE job_id = 'running'"),
    Backstop("models_fence_insert", f"{MODEL} ('x', 'running', 1, 'x', 'x', 1, '{{}}', 'x', 1)"),
    Backstop("models_fence_update", "UPDATE models SET attempt = 1 WHERE job_id = 'running'"),
    Backstop("models_of_a_job", f"{MODEL} ('x', NULL, 1, 'imported', 'y', 1, '{{}}', 'x', 1)"),
    Backstop("pipelines_outcome", "UPDATE pipelines SET outcome = 'failed' WHERE id = 'first'"),
    Backstop("pipelines_idempotency", "UPDATE pipelines SET idempotency_key = 'k' WHERE id = 'first'"),
    Backstop("pipelines_idempotency_key", "UPDATE pipelines SET idempotency_key = 'k', idempotency_hash = 'h'"),
    Backstop("pipeline_steps_once", "UPDATE pipeline_steps SET problem = '{}' WHERE job_id = 'running'"),
    Backstop("attempt_fence: does not run", f"{METRIC} ('running', 'x', 1, 1, 0)"),
    Backstop("transitions_guard", "UPDATE transitions SET to_state = 'failed' WHERE job_id = 'ended'"),
    Backstop("transitions_guard: by the database alone", "DELETE FROM transitions WHERE job_id = 'ended'"),
)

TRACES = {"jobs_begun": "queued", "jobs_moved": "ended"}
"""Triggers that refuse nothing: without the first a job's beginning leaves no trace, without the second no move does."""

SCENE = (
    *(f"{COLUMNS}) VALUES ('{name}', 'x', '{{}}', '{{}}', 1, 3, 'queued')" for name in ("queued", "running", "ended")),
    *(
        f"UPDATE jobs SET state = 'running', attempt = 1, lease_until = now() WHERE id = '{name}';"
        f" INSERT INTO attempts (job_id, attempt, worker_id) VALUES ('{name}', 1, 'x')"
        for name in ("running", "ended")
    ),
    "UPDATE attempts SET outcome = 'drained', ended_at = now() WHERE attempt = 1",
    "UPDATE jobs SET state = 'queued', lease_until = NULL WHERE id = 'running'",
    "UPDATE jobs SET state = 'succeeded', lease_until = NULL, finished_at = now() WHERE id = 'ended'",
    "UPDATE jobs SET state = 'running', attempt = 2, lease_until = now() WHERE id = 'running'",
    "INSERT INTO attempts (job_id, attempt, worker_id) VALUES ('running', 2, 'x')",
    f"{EVENT} ('running', 1, 2, 'started')",
    f"{METRIC} ('running', 'loss', 1, 2, 0)",
    f"{FILE} ('running', 'log', 2, 'x', 1, 'x')",
    f"{MODEL} ('mdl', 'running', 2, 'model', 'x', 7, '{{}}', 'x', 1)",
    "INSERT INTO pipelines (id) VALUES ('first'), ('second')",
    "INSERT INTO pipeline_steps (pipeline_id, name, position, spec, needs, job_id) VALUES ('first', 'x', 0, '{}', '{}', 'running')",
)


def wrote(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Every statement that must not be, refused for its own reason alone; and no backstop that nobody tries."""
    with rig.connection() as connection:
        for backstop in BACKSTOPS:
            rig.note("forbidden write")
            figures.expect(not _goes_through(connection, backstop, without=False), f"{backstop.name} does not refuse")
            figures.expect(_goes_through(connection, backstop, without=True), f"{backstop.name} is not what refuses")
        known = {backstop.name for backstop in BACKSTOPS} | set(TRACES)
        for name in _backstops_of(connection):
            figures.expect(name in known, f"no statement tries {name}")
        for trigger, job in TRACES.items():
            found = _traces(connection, job, None), _traces(connection, job, trigger)
            figures.expect(found[0] > found[1], f"{trigger} leaves no trace: {found}")


def _goes_through(connection: psycopg.Connection[Any], backstop: Backstop, without: bool) -> bool:
    with connection.transaction(force_rollback=True):
        for statement in SCENE:
            connection.execute(statement)  # type: ignore[arg-type]
        if backstop.prepare:
            connection.execute(backstop.prepare)  # type: ignore[arg-type]
        if without:
            connection.execute(_removal(connection, backstop.name))  # type: ignore[arg-type]
        try:
            with connection.transaction():
                connection.execute(backstop.statement)  # type: ignore[arg-type]
        except psycopg.IntegrityError:
            return False
        return True


def _traces(connection: psycopg.Connection[Any], job: str, without: str | None) -> int:
    with connection.transaction(force_rollback=True):
        if without:
            connection.execute(_removal(connection, without))  # type: ignore[arg-type]
        for statement in SCENE:
            connection.execute(statement)  # type: ignore[arg-type]
        found = connection.execute("SELECT count(*) FROM transitions WHERE job_id = %s", [job]).fetchone()
        assert found is not None
        return int(found[0])


def _removal(connection: psycopg.Connection[Any], name: str) -> str:
    """The statement that takes a backstop away."""
    function, _, words = name.partition(": ")
    if words:
        row = connection.execute(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", [function]
        ).fetchone()
        assert row is not None, f"there is no function {function}"
        spoken = re.compile(r"RAISE EXCEPTION '[^']*" + re.escape(words) + r"[^;]*;")
        assert spoken.search(row[0]), f"{function} does not say {words!r}"
        return spoken.sub("NULL;", row[0])
    for kind, query in (
        (
            "ALTER TABLE {} DROP CONSTRAINT {}",
            "SELECT conrelid::regclass FROM pg_constraint WHERE conname = %s AND contype = 'c'",
        ),
        ("DROP TRIGGER {1} ON {0}", "SELECT tgrelid::regclass FROM pg_trigger WHERE tgname = %s AND NOT tgisinternal"),
        ("DROP INDEX {1}", "SELECT tablename FROM pg_indexes WHERE indexname = %s"),
    ):
        row = connection.execute(query, [name]).fetchone()  # type: ignore[arg-type]
        if row is not None:
            return kind.format(row[0], name)
    raise AssertionError(f"the database has no {name}")


def _backstops_of(connection: psycopg.Connection[Any]) -> list[str]:
    """Every CHECK, partial unique index and trigger on the protocol's tables, and every exception in their functions."""
    names = connection.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text = ANY(%(tables)s)"
        " UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text = ANY(%(tables)s)"
        " AND tgname NOT LIKE 'z_watch_%%'"  # the harness's own
        " UNION ALL SELECT indexname FROM pg_indexes WHERE tablename = ANY(%(tables)s)"
        " AND indexdef LIKE 'CREATE UNIQUE%%' AND indexdef LIKE '%%WHERE%%'",
        {"tables": list(TABLES)},
    ).fetchall()
    functions = connection.execute(
        "SELECT proname, prosrc FROM pg_proc WHERE prorettype = 'trigger'::regtype AND pronamespace = 'public'::regnamespace"
    ).fetchall()
    known = [backstop.name.partition(": ") for backstop in BACKSTOPS if ": " in backstop.name]
    said = []
    for function, source in functions:
        for sentence in re.findall(r"RAISE EXCEPTION '([^']*)'", source):
            tried = [f"{name}: {words}" for name, _, words in known if name == function and words in sentence]
            said.append(tried[0] if tried else f"{function}: {sentence}")
    return [name for (name,) in names] + said


SCENARIOS = (Scenario(16, "rogue writes", wrote, "every CHECK, index and trigger of the database", 1, 1),)
