"""What the harness sees for itself: processes that a worker leaves behind, and rows that the wrong attempt writes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import LiteralString

from worker.training.process.guard import MARK

Process = tuple[int, str]
"""A pid and when it was started, by the kernel's clock: the number alone may soon be another's."""

WATCHED = ("metrics", "artifacts", "models", "events")

# As the product's own fences, but it refuses nothing, and looks without a lock.
WATCH: LiteralString = """
CREATE SCHEMA harness;
CREATE TABLE harness.stale (table_name text, job_id text, attempt integer, newest integer, state text);
CREATE FUNCTION harness.watch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO harness.stale
        SELECT DISTINCT TG_TABLE_NAME, w.job_id, w.attempt, jobs.attempt, jobs.state
        FROM written AS w JOIN jobs ON jobs.id = w.job_id
        WHERE w.attempt <> jobs.attempt OR (jobs.state <> 'running' AND TG_TABLE_NAME <> 'events');
    RETURN NULL;
END $$;
""" + "".join(
    f"CREATE TRIGGER z_watch_{verb} AFTER {verb} ON {table} REFERENCING NEW TABLE AS written"
    " FOR EACH STATEMENT EXECUTE FUNCTION harness.watch();\n"
    for table in WATCHED
    for verb in ("insert", "update")
)


def family(pid: int) -> list[Process]:
    """All descendants."""
    found: list[Process] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [one for one in (_process(child),) if one] + family(child)
    return found


def survivors(known: list[Process]) -> set[int]:
    """Those that have not ended."""
    return {process[0] for process in known if _process(process[0]) == process}


def trainers(home: Path) -> list[int]:
    """Every trainer of the service with that data folder, and all that one has started, in whatever session: by what is in their
    environment from birth."""
    marks = f"HOME={home}".encode(), MARK.encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            born_with = (entry / "environ").read_bytes().split(b"\0")
            if marks[0] in born_with and any(word.startswith(marks[1] + b"=") for word in born_with):
                found += [int(entry.name)] if _process(int(entry.name)) else []
    return sorted(found)


def _process(pid: int) -> Process | None:
    """None where it has ended, though it may not be buried."""
    with contextlib.suppress(OSError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if words[0] in "ZX" else (pid, words[19])
    return None
