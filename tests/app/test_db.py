"""The schema is the one that the tables describe, and a transaction is whole or nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import db
from app.api import problems
from app.db import after_commit, transaction
from app.settings import settings
from tests.small_disk import small_disk

pytestmark = pytest.mark.usefixtures("database")


def test_migrations_and_tables_do_not_drift() -> None:
    command.check(db._alembic())
    assert db.behind() is False


def test_programs_that_start_together_migrate_once() -> None:
    with db.engine().begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    assert db.behind() is True
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: db.migrate(), range(4)))
    assert db.behind() is False


def test_an_action_waits_for_the_commit_and_falls_with_the_transaction() -> None:
    done: list[str] = []
    with transaction() as session:
        after_commit(session, lambda: done.append("kept"))
        assert done == []
    assert done == ["kept"]

    def fall() -> None:
        with transaction() as session:
            after_commit(session, lambda: done.append("lost"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fall()
    assert done == ["kept"]


def test_an_action_that_fails_does_not_unsay_the_commit() -> None:
    done: list[str] = []
    with transaction() as session:
        after_commit(session, [].pop)
        after_commit(session, lambda: done.append("the next one"))
    assert done == ["the next one"]


def test_a_database_that_answers_is_seen() -> None:
    assert db.ping() is True


def test_a_database_that_is_out_of_disk_is_told_from_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(statement: str) -> str:
        with pytest.raises(OperationalError) as fallen, db.engine().begin() as connection:
            connection.execute(text(statement))
        return problems.of(fallen.value).code

    gone = "SELECT pg_terminate_backend(pg_backend_pid())"
    assert code("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$") == "disk_full"
    assert code(gone) == "database_unavailable"
    with small_disk(tmp_path / "disk", 8) as disk:
        monkeypatch.setattr(settings(), "data", disk)
        assert code(gone) == "database_unavailable", "its files lie elsewhere"
        (disk / "postgres").mkdir()
        assert code(gone) == "disk_full"
