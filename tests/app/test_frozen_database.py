"""A database whose processes stand still, as on a machine that swaps or is being moved: nobody waits longer than for one that is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import db, embedded
from tests.app.api.conftest import api_process, wait_for
from worker import machine

pytestmark = pytest.mark.slow  # starts programs, and waits for what ails them

PROMISED_SECONDS = 6.0
JOB = {"kind": "light"}


@dataclass
class Service:
    """An API of its own on a Postgres of its own."""

    client: httpx.Client
    postgres: int

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Meanwhile no process of Postgres moves."""
        stopped = machine.process_tree(self.postgres)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        wait_for(lambda: self.client.get("/v1/jobs").status_code == 200, 5)

    def ask(self, count: int) -> list[int]:
        """The statuses of so many requests at once, reads and submissions in turn."""

        def one(number: int) -> int:
            if number % 2:
                return self.client.post("/v1/jobs", json=JOB).status_code
            return self.client.get("/v1/jobs").status_code

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))


@pytest.fixture(scope="module")
def service(_service: None, run_dir: Path) -> Iterator[Service]:
    with embedded.folder(run_dir / "frozen") as folder:
        postgres = embedded.start_postgres(folder)
        try:
            environment = {"DATABASE_URL": embedded.database_url(folder), "BEQUEST_DATA": str(folder.home)}
            limits = httpx.Limits(max_connections=100)
            with (
                api_process(**environment) as (port, _),
                httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as client,
            ):
                yield Service(client, postgres.process.pid)
        finally:
            postgres.stop(10)


def test_a_frozen_database_is_answered_for_within_seconds_on_warm_connections_too(service: Service) -> None:
    assert set(service.ask(24)) == {200, 202}  # the pool is warm from here on
    with service.frozen():
        began = time.monotonic()
        assert set(service.ask(24)) == {503}
        assert time.monotonic() - began < PROMISED_SECONDS
    assert set(service.ask(24)) == {200, 202}


def test_a_service_whose_database_is_frozen_says_soon_that_it_is_not_ready(service: Service) -> None:
    assert service.client.get("/readyz").json()["database"] == "ok"
    with service.frozen():
        began = time.monotonic()
        answer = service.client.get("/readyz")
        assert time.monotonic() - began < PROMISED_SECONDS
    assert (answer.status_code, answer.json()["database"]) == (503, "down")


def test_a_submission_that_met_a_frozen_database_can_be_repeated_under_its_key(service: Service) -> None:
    headers = {"idempotency-key": "once"}
    assert set(service.ask(8)) == {200, 202}
    with service.frozen():
        assert service.client.post("/v1/jobs", json=JOB, headers=headers).status_code == 503
    first, second = (service.client.post("/v1/jobs", json=JOB, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]


@pytest.mark.usefixtures("database")
def test_a_statement_of_a_server_that_lives_may_take_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(db, "_SILENCE_SECONDS", 0.1)
    with db.engine().connect() as connection:
        assert connection.execute(text("SELECT pg_sleep(1.2), 7")).one()[1] == 7


@pytest.mark.usefixtures("database")
def test_a_server_that_refuses_new_connections_is_not_taken_for_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(db, "_SILENCE_SECONDS", 0.1)
    with db.engine().connect() as connection:
        connection.execute(text("SELECT 1"))
        monkeypatch.setattr(db.engine().dialect, "create_connect_args", lambda _: ([], {"host": "/nowhere"}))
        assert connection.execute(text("SELECT pg_sleep(1.2), 7")).one()[1] == 7


@pytest.mark.usefixtures("database")
def test_while_a_server_is_known_to_be_silent_nobody_waits_for_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_silent_until", time.monotonic() + 60)
    db.engine().dispose()
    with pytest.raises(OperationalError):
        db.engine().connect()
