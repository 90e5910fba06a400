"""Wakes workers. A message is a bare wake-up: it carries no job, so losing, doubling or reordering messages changes
nothing.

The only place that knows Celery's message name. A dead or hung broker costs a second and is logged, never an error:
the sweep sends again.
"""

from __future__ import annotations

import time
from functools import cache

import structlog
from celery import Celery
from redis import Redis

from app.settings import settings

WAKE = "bequest.wake"
_BACK_OFF_SECONDS = 5.0
_asleep_until = [0.0]  # 0 while wake-ups leave

log = structlog.get_logger(__name__)


def wake(count: int = 1) -> bool:
    """Sends up to `count` wake-ups; whether they left. After a failure it does not try again for some seconds."""
    if time.monotonic() < _asleep_until[0]:
        return False
    try:
        for _ in range(count):
            _sender().send_task(WAKE, queue=settings().queue, ignore_result=True, retry=False)
    except Exception as error:  # a broker can fail in any way; the job row is already safe
        if not _asleep_until[0]:  # once an outage: the sweep tries again and again
            log.warning("wake_not_sent", error=type(error).__name__)
        _asleep_until[0] = time.monotonic() + _BACK_OFF_SECONDS
        return False
    _asleep_until[0] = 0.0
    return True


def length() -> int | None:
    """How many wake-ups wait in the broker, or None where it does not answer."""
    try:
        return int(_redis().llen(settings().queue))
    except Exception:
        return None


def ping() -> bool:
    """Whether the broker takes wake-ups."""
    try:
        probe(_redis())
    except Exception:
        return False
    return True


def probe(broker: Redis) -> None:
    """Raises what the broker would answer to a wake-up, and sends none: RPUSHX adds nothing to a list that does not exist.

    A PING says less: a broker that is read-only, short of replicas or of memory, or cannot save, answers it well.
    """
    broker.rpushx(f"{settings().queue}.probe", "")


@cache
def _sender() -> Celery:
    sender = Celery("bequest-sender", broker=_url(), set_as_current=False)
    sender.conf.update(
        broker_connection_timeout=1,
        broker_transport_options={
            "socket_timeout": 1,
            "socket_connect_timeout": 1,
            "retry_on_timeout": False,
            "max_retries": 0,
        },
        task_ignore_result=True,
        task_serializer="json",
        task_send_sent_event=False,
    )
    return sender


@cache
def _redis() -> Redis:
    return Redis.from_url(
        _url().removeprefix("redis+").replace("socket://", "unix://", 1), socket_timeout=1, socket_connect_timeout=1
    )


def _url() -> str:
    address = settings().broker_url
    if not address:
        raise RuntimeError("BROKER_URL is not set: only `bequest serve` starts a broker of its own")
    return address
