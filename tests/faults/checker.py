"""Reads the database and the store after a scenario, and holds the invariants: one function each.

It shares no code with the service: plain SQL, files, and what the clients and the workers' logs say. Run it when nothing is
running any more. `tests/faults/test_checker.py` proves that each function bites.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.methods import chain
from tests.faults.record import Cancel
from tests.faults.rig import TERMINAL

MOVES = {
    (None, "queued"), ("queued", "running"), ("queued", "cancelled"), ("queued", "paused"), ("running", "queued"),
    ("running", "paused"), ("running", "succeeded"), ("running", "failed"), ("running", "cancelled"), ("paused", "queued"),
    ("paused", "cancelled"),
}  # fmt: skip
"""Written down once more on purpose: app/states.py is what is checked."""

FREE = ("succeeded", "cancelled", "drained", "paused")
"""Outcomes of an attempt that cost none of the budget."""


@dataclass(frozen=True)
class Violation:
    """`is_late` where it may be that something would still have come, had the machine been faster."""

    invariant: str
    job_id: str | None
    what: str
    is_late: bool = False

    def __str__(self) -> str:
        return f"{self.invariant} {self.job_id or ''}: {self.what}"


@dataclass
class Scene:
    """What the checker looks at."""

    connection: psycopg.Connection[Any]
    store: Path
    acknowledged: Collection[str] = ()
    cancels: Sequence[Cancel] = ()
    cancels_asked: Collection[str] = ()
    may_fail: Collection[str] = ()
    endings: Sequence[Mapping[str, Any]] = ()
    faulty_answers: Sequence[str] = ()
    orphans: Sequence[int] = ()
    cancel_seconds: float = 5.0
    jobs: list[dict[str, Any]] = field(init=False)
    attempts: dict[str, list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = self.read("SELECT *, extract(epoch FROM finished_at) AS finished FROM jobs ORDER BY id")
        self.attempts = self.by_job(
            "SELECT *, extract(epoch FROM started_at) AS started FROM attempts ORDER BY job_id, attempt"
        )

    def read(self, query: str) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(query).fetchall()  # type: ignore[arg-type]

    def by_job(self, query: str) -> dict[str, list[dict[str, Any]]]:
        grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self.read(query):
            grouped[row["job_id"]].append(row)
        return grouped


def check(scene: Scene) -> list[Violation]:
    """Every violation of every invariant."""
    return [violation for invariant in INVARIANTS for violation in invariant(scene)]


def every_acknowledged_job_ends(scene: Scene) -> Iterator[Violation]:
    """I1: what the API has acknowledged is there, and has come to an end."""
    there = {job["id"]: job["state"] for job in scene.jobs}
    for job_id in scene.acknowledged:
        if job_id not in there:
            yield Violation("I1", job_id, "was acknowledged and is not there")
        elif there[job_id] not in TERMINAL:
            yield Violation("I1", job_id, f"was acknowledged and is {there[job_id]} in the end", is_late=True)


def each_job_ends_once(scene: Scene) -> Iterator[Violation]:
    """I2: by the transitions that a trigger wrote, and by the events that clients saw: legal moves, at most one end, the last."""
    histories = {
        "events": scene.by_job(
            "SELECT job_id, data->>'state' AS state FROM events WHERE type = 'state' AND data ? 'state' ORDER BY job_id, seq"
        )
    }
    if scene.read("SELECT 1 FROM pg_tables WHERE tablename = 'transitions'"):
        histories["transitions"] = scene.by_job(
            "SELECT job_id, to_state AS state FROM transitions ORDER BY job_id, seq"
        )
    for source, history in histories.items():
        for job in scene.jobs:
            states = [row["state"] for row in history[job["id"]]]
            ends = sum(state in TERMINAL for state in states)
            if ends != (job["state"] in TERMINAL):
                yield Violation("I2", job["id"], f"is {job['state']} and has {ends} ends among its {source}: {states}")
            if not states or states[-1] != job["state"]:
                yield Violation("I2", job["id"], f"is {job['state']}, but its {source} are {states}")
            steps = set(zip([None, *states], states, strict=False))
            if steps - MOVES:
                yield Violation("I2", job["id"], f"made moves that are none by its {source}: {steps - MOVES}")


def each_end_has_its_cause(scene: Scene) -> Iterator[Violation]:
    """I1: a service that fails or cancels whatever was disturbed loses nothing and is of no use. A job is cancelled where a client asked
    for it, and fails as the scenario has it fail, or with all its attempts spent."""
    for job in scene.jobs:
        if job["id"] not in scene.acknowledged:
            continue
        if job["state"] == "cancelled" and job["id"] not in scene.cancels_asked:
            yield Violation("I1", job["id"], "was cancelled, and nobody had asked for it")
        if job["state"] == "failed" and job["reason"] not in {"attempts_spent", *scene.may_fail}:
            yield Violation("I1", job["id"], f"failed of {job['reason']}, which nothing had caused")


def a_running_job_has_one_owner(scene: Scene) -> Iterator[Violation]:
    """I2: lease, attempts and budget agree with the state."""
    for job in scene.jobs:
        attempts = scene.attempts[job["id"]]
        if (job["state"] == "running") != (job["lease_until"] is not None):
            yield Violation("I2", job["id"], f"is {job['state']} with a lease until {job['lease_until']}")
        if [row["attempt"] for row in attempts] != list(range(1, job["attempt"] + 1)):
            yield Violation("I2", job["id"], f"is at attempt {job['attempt']} and has {len(attempts)} of them")
        open_ones = [row["attempt"] for row in attempts if row["ended_at"] is None]
        if open_ones != ([job["attempt"]] if job["state"] == "running" else []):
            yield Violation("I2", job["id"], f"is {job['state']} and its attempts {open_ones} are open")
        charged = sum(row["outcome"] not in (None, *FREE) for row in attempts)
        if charged != job["failures"]:
            yield Violation("I2", job["id"], f"counts {job['failures']} failures, its attempts {charged}")
        if job["failures"] > job["max_attempts"]:
            yield Violation("I2", job["id"], f"failed {job['failures']} times of {job['max_attempts']} allowed")
        if job["reason"] == "attempts_spent" and job["failures"] != job["max_attempts"]:
            yield Violation("I2", job["id"], f"gave up after {job['failures']} failures of {job['max_attempts']}")


def no_stale_write_is_accepted(scene: Scene) -> Iterator[Violation]:
    """I3: nothing of an attempt lies beyond where a later one began again, and no worker spoke a last word that another had said."""
    outcomes = {(job_id, row["attempt"]): row["outcome"] for job_id, rows in scene.attempts.items() for row in rows}
    for said in scene.endings:
        outcome = outcomes.get((said["job_id"], said["attempt"]))
        if said["ending"] != "lost" and outcome in (None, "worker_lost"):
            yield Violation(
                "I3", said["job_id"], f"attempt {said['attempt']} said {said['ending']} after it was {outcome}"
            )
    stages = scene.by_job(
        "SELECT job_id, attempt, data->>'stage' AS stage FROM events WHERE type IN ('resumed', 'checkpoint')"
    )
    rows = scene.by_job(
        "SELECT job_id, CASE WHEN name LIKE '%/%' THEN regexp_replace(name, '/[^/]*$', '') ELSE 'target' END AS stage,"
        " attempt, max(step) AS step FROM metrics GROUP BY 1, 2, 3"
    )
    for job_id, recorded in rows.items():
        resumed = {row["attempt"]: row["resumed"] or {} for row in scene.attempts[job_id]}
        # Those that have said more of the stage than its name: after the name and before the rewind an attempt may die.
        began = {(row["attempt"], row["stage"]) for row in [*stages[job_id], *recorded]}
        for row in recorded:
            for attempt, stage in began:
                since = resumed.get(attempt, {}).get(stage, 0)
                if stage == row["stage"] and attempt > row["attempt"] and row["step"] > since:
                    what = f"attempt {row['attempt']} has a row at step {row['step']} of {stage}"
                    yield Violation("I3", job_id, f"{what}, where attempt {attempt} began again at {since}")
    for table in ("metrics", "artifacts", "events"):
        for row in scene.read(
            f"SELECT DISTINCT job_id, {table}.attempt, jobs.attempt AS newest FROM {table} JOIN jobs ON jobs.id = job_id"
            f" WHERE {table}.attempt > jobs.attempt"
        ):
            yield Violation("I3", row["job_id"], f"{table} of attempt {row['attempt']}, the newest is {row['newest']}")


def no_write_comes_from_another_attempt(scene: Scene) -> Iterator[Violation]:
    """I3: by the harness's own trigger, which has seen every row as it was written (`rig.WATCH`)."""
    if scene.read("SELECT 1 FROM pg_namespace WHERE nspname = 'harness'"):
        for row in scene.read("SELECT DISTINCT * FROM harness.stale"):
            what = f"{row['table_name']} of attempt {row['attempt']} were written"
            yield Violation("I3", row["job_id"], f"{what} when it was {row['state']} in attempt {row['newest']}")


def metrics_are_those_of_an_unbroken_run(scene: Scene) -> Iterator[Violation]:
    """I4: steps 1 … n of each series, each with the value of the chain; all of them where the job succeeded."""
    chains = {job["id"]: job for job in scene.jobs if job["kind"] == "chain"}
    series: dict[tuple[str, str], list[tuple[int, float | None]]] = defaultdict(list)
    for row in scene.read("SELECT job_id, name, step, value FROM metrics ORDER BY job_id, name, step"):
        series[row["job_id"], row["name"]].append((row["step"], row["value"]))
    for job_id, job in chains.items():
        spec = job["resolved_spec"]
        for stage, name, steps in (("target", "loss", spec["steps"]), ("source", "source/loss", spec["source_steps"])):
            rows = series[job_id, name]
            expected = chain.values(spec["seed"], stage, len(rows))
            if [step for step, _ in rows] != list(range(1, len(rows) + 1)):
                yield Violation("I4", job_id, f"{name} has a gap: steps {_shown([step for step, _ in rows])}")
            elif [value for _, value in rows] != expected:
                first = next(step for (step, value), right in zip(rows, expected, strict=True) if value != right)
                yield Violation("I4", job_id, f"{name} differs from an unbroken run's at step {first}")
            if job["state"] == "succeeded" and len(rows) != steps:
                yield Violation("I4", job_id, f"succeeded with {len(rows)} of {steps} steps of {name}")


def events_are_numbered_without_gaps(scene: Scene) -> Iterator[Violation]:
    """I4: a client that follows a job by its events misses none."""
    for row in scene.read(
        "SELECT id AS job_id, last_event, count(seq) AS count, coalesce(max(seq), 0) AS last FROM jobs"
        " LEFT JOIN events ON job_id = id GROUP BY id HAVING count(seq) <> last_event OR coalesce(max(seq), 0) <> last_event"
    ):
        yield Violation(
            "I4", row["job_id"], f"says {row['last_event']} events and has {row['count']}, to {row['last']}"
        )


def every_row_has_its_blob(scene: Scene) -> Iterator[Violation]:
    """I5: what a row names is in the store, whole; a chain that succeeded has kept the model of an unbroken run."""
    named = scene.read(
        "SELECT job_id, name, sha256, bytes FROM artifacts UNION ALL SELECT job_id, role, sha256, bytes FROM models"
        " UNION ALL SELECT job_id, role, rows_sha256, NULL FROM models WHERE rows_sha256 IS NOT NULL"
        " UNION ALL SELECT NULL, name, prepared_sha256, NULL FROM datasets"
    )
    sizes: dict[str, int | None] = {}
    for row in named:
        if row["sha256"] not in sizes:
            sizes[row["sha256"]] = _whole(scene.store / "blob" / row["sha256"])
        size = sizes[row["sha256"]]
        if size is None:
            yield Violation("I5", row["job_id"], f"{row['name']}: the store has no whole {row['sha256'][:12]}")
        elif row["bytes"] not in (None, size):
            yield Violation("I5", row["job_id"], f"{row['name']}: {size} bytes in the store, {row['bytes']} by its row")
    own = {row["job_id"]: row for row in scene.read("SELECT * FROM models WHERE role = 'model'")}
    for job in scene.jobs:
        if job["state"] == "succeeded" and (job["id"] not in own or own[job["id"]]["id"] != job["model_id"]):
            yield Violation("I5", job["id"], "succeeded without its own model")
        elif job["state"] == "succeeded" and job["kind"] == "chain":
            spec, links = job["resolved_spec"], chain.links(job["resolved_spec"]["seed"], "target")
            link = [next(links) for _ in range(spec["steps"] + 1)][-1]
            if hashlib.sha256(chain.model(link, spec["payload"])).hexdigest() != own[job["id"]]["sha256"]:
                yield Violation("I5", job["id"], "has kept another model than an unbroken run")


def a_cancel_ends_its_job(scene: Scene) -> Iterator[Violation]:
    """I6: within 5 s and the grace; a job that was cancelled before it ran never runs."""
    jobs = {job["id"]: job for job in scene.jobs}
    for cancel in scene.cancels:
        job = jobs.get(cancel.job_id)
        if job is None:
            continue  # I1 says so
        if job["state"] not in TERMINAL or job["finished"] is None:
            is_late = job["state"] not in TERMINAL
            yield Violation("I6", cancel.job_id, f"a cancel was accepted; in the end it is {job['state']}", is_late)
        elif float(job["finished"]) > cancel.answered + scene.cancel_seconds:
            late = float(job["finished"]) - cancel.answered
            what = f"ended {late:.1f} s after its cancel, allowed {scene.cancel_seconds:.1f}"
            yield Violation("I6", cancel.job_id, what, is_late=True)
        if cancel.state == "cancelled" and any(
            float(attempt["started"]) > cancel.answered for attempt in scene.attempts[cancel.job_id]
        ):
            yield Violation("I6", cancel.job_id, "was started after it had been cancelled")


def a_cancel_has_its_receipt(scene: Scene) -> Iterator[Violation]:
    """I6: the last event but one of a cancelled job says that its process is gone; no other job has such an event."""
    events = scene.by_job("SELECT job_id, type, data->'gone' AS gone FROM events ORDER BY job_id, seq")
    for job in scene.jobs:
        told = [(row["type"], row["gone"]) for row in events[job["id"]]]
        receipts = sum(kind == "resources.released" for kind, _ in told)
        if receipts != (job["state"] == "cancelled"):
            yield Violation("I6", job["id"], f"is {job['state']} and has {receipts} receipts")
        elif receipts and told[-2] != ("resources.released", True):
            yield Violation("I6", job["id"], f"was cancelled, and its last events are {told[-2:]}")


def the_api_has_no_fault_of_its_own(scene: Scene) -> Iterator[Violation]:
    """I7: no answer of the 500s that the injected fault does not excuse."""
    for answer in scene.faulty_answers:
        yield Violation("I7", None, answer)


def no_trainer_outlives_its_worker(scene: Scene) -> Iterator[Violation]:
    """I8: a second after a worker's death none of its trainers is there."""
    for pid in scene.orphans:
        yield Violation("I8", None, f"trainer {pid} lives on without its worker", is_late=True)


INVARIANTS = (
    every_acknowledged_job_ends,
    each_end_has_its_cause,
    each_job_ends_once,
    a_running_job_has_one_owner,
    no_stale_write_is_accepted,
    no_write_comes_from_another_attempt,
    metrics_are_those_of_an_unbroken_run,
    events_are_numbered_without_gaps,
    every_row_has_its_blob,
    a_cancel_ends_its_job,
    a_cancel_has_its_receipt,
    the_api_has_no_fault_of_its_own,
    no_trainer_outlives_its_worker,
)


def _whole(blob: Path) -> int | None:
    """The blob's length, where its content is what its name says."""
    try:
        with blob.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return blob.stat().st_size if digest == blob.name else None
    except OSError:
        return None


def _shown(steps: Sequence[int]) -> str:
    return str(list(steps)) if len(steps) < 40 else f"{list(steps[:20])} … {list(steps[-20:])}"
