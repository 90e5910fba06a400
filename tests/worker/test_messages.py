"""What a worker's channel does with the broker's messages."""

from __future__ import annotations

import pytest
from kombu import Connection, Consumer, Queue
from redis import Redis

from app import queue


@pytest.mark.usefixtures("database")
def test_a_wake_up_whose_acknowledgement_fails_does_not_make_the_worker_deaf(broker_url: str) -> None:
    """A hung broker takes no acknowledgement, and kombu fetches nothing while it owes one: so it never owes one."""
    import worker.main  # noqa: F401 - its channel is kombu's from then on

    def is_refused(*_: object) -> None:
        raise ConnectionError("a hung broker")

    assert queue.wake(2)
    heard = []
    with Connection(broker_url) as connection:
        channel = connection.default_channel
        channel.basic_qos(prefetch_count=1)
        with Consumer(channel, [Queue(queue.settings().queue)], callbacks=[lambda _, message: heard.append(message)]):
            connection.drain_events(timeout=10)
            channel.qos._remove_from_indices = is_refused
            heard[0].ack_log_error(queue.log, (ConnectionError,))
            connection.drain_events(timeout=10)
    assert len(heard) == 2
    assert not Redis.from_url(broker_url).hlen("unacked"), "the broker keeps what nobody will acknowledge"
