"""The database connection, and the only place that commits: one request or one report is one transaction."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import structlog
from psycopg import errors
from sqlalchemy import Engine, Select, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.settings import settings

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "Session",
    "after_commit",
    "behind",
    "engine",
    "get_session",
    "migrate",
    "ping",
    "ran_out_of_disk",
    "stream",
    "transaction",
    "url",
]

Row = TypeVar("Row")

log = structlog.get_logger(__name__)

_MIGRATION_LOCK = 7_265_717  # any number, the same in every process
_PATIENCE_SECONDS, _PROBE_SECONDS = 2.5, 2  # together less than the 5 s in which a request is answered
_SILENCE_SECONDS = 1.0
_AT_A_TIME = 8  # each row may hold megabytes
_WAL_SEGMENT = 16 * 2**20
_probing = threading.Lock()
_silent_until = _answered_until = 0.0


def url() -> str:
    """The SQLAlchemy URL.

    Raises:
        RuntimeError: DATABASE_URL is not set.
    """
    address = settings().database_url
    if not address:
        raise RuntimeError("DATABASE_URL is not set: only `bequest serve` starts a database of its own")
    return address.replace("postgres://", "postgresql://", 1) if address.startswith("postgres://") else address


@cache
def engine() -> Engine:
    """One pool a process; a connection that died is noticed before it is used.

    A process frozen within a transaction holds its locks, the sweep's too: the server ends such a transaction. A server
    that is frozen, or vanished from the network, is given up within seconds, not after TCP's quarter of an hour.
    """
    idle = int(1000 * max(5.0, settings().lease_seconds))
    made = create_engine(
        url(),
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=20,
        connect_args={
            "connect_timeout": 4,
            "application_name": "bequest",
            "options": f"-c idle_in_transaction_session_timeout={idle}",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        },
    )
    event.listen(made, "do_connect", _connect)
    return made


class _Connection(psycopg.Connection[Any]):
    """Gives up waiting for an answer once the server leaves a new connection unanswered as well.

    A statement may take as long as it likes, and wait for any lock, as long as the server lives. A kernel's time limits cannot tell
    the two apart, and a Unix socket has none.
    """

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        silent = False
        while timeout is None:
            try:
                return super().wait(gen, interval, 0 if silent else _PATIENCE_SECONDS)
            except errors._WaitTimeout:
                if silent:  # and the last look came after the server was asked
                    self.close()
                    raise psycopg.OperationalError("the server does not answer") from None
                silent = _is_silent()
        return super().wait(gen, interval, timeout)


def _connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> psycopg.Connection[Any]:
    """A connection. While the server is known to be silent, this fails at once, so that nobody waits for it a second time."""
    global _silent_until
    if time.monotonic() < _silent_until:
        raise psycopg.OperationalError("the server does not answer")
    try:
        return _Connection.connect(*arguments, **named)
    except errors.ConnectionTimeout:
        _silent_until = time.monotonic() + _SILENCE_SECONDS
        raise


def _is_silent() -> bool:
    """Whether the server leaves a new connection without any answer. Those who ask at the same time share one probe."""
    global _silent_until, _answered_until
    with _probing:
        if time.monotonic() < max(_silent_until, _answered_until):
            return _silent_until > _answered_until
        arguments, named = engine().dialect.create_connect_args(engine().url)
        try:
            psycopg.connect(*arguments, **{**named, "connect_timeout": _PROBE_SECONDS}).close()
        except errors.ConnectionTimeout:
            _silent_until = time.monotonic() + _SILENCE_SECONDS
            return True
        except psycopg.Error:  # it refuses, and so it lives; or it has gone, which its connections are told
            pass
        _answered_until = time.monotonic() + _SILENCE_SECONDS
        return False


@contextmanager
def transaction() -> Iterator[Session]:
    """A session whose work is committed at the end, or not at all.

    Actions given to `after_commit` run when the work is durable.
    """
    with Session(engine(), expire_on_commit=False) as session:
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise
        actions: list[Callable[[], Any]] = session.info.pop("after_commit", [])
    for action in actions:
        try:
            action()
        except Exception as error:  # the work is durable: nobody may be told that it failed
            log.warning("after_commit_failed", error=type(error).__name__)


def after_commit(session: Session, action: Callable[[], Any]) -> None:
    """Runs `action` once the session's transaction is durable; never when it is rolled back.

    An action's error is logged and no more: sweeping and tidying up make good for it.
    """
    session.info.setdefault("after_commit", []).append(action)


def get_session() -> Iterator[Session]:
    """For `Depends(get_session, scope="function")`: with that scope the answer is sent after the commit, not before."""
    with transaction() as session:
        yield session


def stream(session: Session, query: Select[Row]) -> Generator[Row]:
    """The rows of a query, of which a few at a time are in memory. Close it where not all are taken."""
    with closing(session.scalars(query.execution_options(yield_per=_AT_A_TIME))) as rows:
        yield from rows


def ran_out_of_disk(error: BaseException) -> bool:
    """Whether the database failed because its disk is full.

    The database says so, or it is gone: Postgres ends when it cannot make the next segment of its log. Then the disk is asked,
    where the database's files lie in the data folder.
    """
    if isinstance(error, DBAPIError) and isinstance(error.orig, errors.DiskFull):
        return True
    own = settings().data / "postgres"
    return "/" in engine().url.query.get("host", "") and own.is_dir() and shutil.disk_usage(own).free < _WAL_SEGMENT


def ping() -> bool:
    """Whether the database answers."""
    try:
        with engine().connect() as connection:
            connection.execute(text("SELECT 1"))
    except Exception:  # whatever it is, the answer is no
        return False
    return True


def migrate() -> None:
    """Brings the schema up to date. Programs that start together wait for the first of them."""
    from alembic import command  # here: every worker starts with this module, and one program migrates

    with engine().connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
        try:
            connection.rollback()  # the lock is the session's, not the transaction's
            config = _alembic()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})


def behind() -> bool:
    """Whether the schema is not the one that this program was written for."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with engine().connect() as connection:
        return (
            MigrationContext.configure(connection).get_current_revision()
            != ScriptDirectory.from_config(_alembic()).get_current_head()
        )


def _alembic() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config
