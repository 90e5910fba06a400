"""The worker: Celery, one message, one job at a time. `celery -A worker.main worker -P solo`; `bequest worker` starts it so.

A message is a bare wake-up. What to run is asked of the database, again and again until nothing is runnable.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from queue import Empty
from typing import Any

import structlog
from celery import Celery, signals
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.transport import redis
from redis.exceptions import ResponseError

from app import artifacts, jobs, logs, queue, workers
from app.db import transaction
from app.errors import NotFound
from app.queue import WAKE
from app.settings import settings
from app.spec import backends
from app.states import is_terminal
from worker import folders, machine, supervisor
from worker.lease_watchdog import now
from worker.trainers import Trainers

_TIDY_SECONDS = 300.0
_LONGEST_BROKER_DELAY = 5

log = structlog.get_logger(__name__)
worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
trainers = Trainers()
_draining = threading.Event()
_running: str | None = None
_device, _has_told = "cpu", False
_room = True


class _Channel(redis.Channel):
    """Takes wake-ups without acknowledging them, and drops a message that is none.

    Losing a wake-up is harmless. But kombu fetches no message while it owes the broker an acknowledgement, and one that a hung broker
    did not take is never made up for: the worker would be deaf for the rest of its life. A message that is none would end the worker by
    its error on the way up.

    A connection counts as made only if the broker does on it all that a worker needs: else connections to a broker that answers with
    errors would be made, lost and made again without a pause.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        try:
            queue.probe(self.client)
            self.client.brpop(f"{settings().queue}.probe", timeout=0.01)
        except Exception:
            self.close()
            raise

    def basic_consume(self, queue: str, no_ack: bool, *where: Any, **options: Any) -> Any:  # noqa: ARG002
        return super().basic_consume(queue, True, *where, **options)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """The broker has kept nothing that it could be told to forget."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("message_dropped", error=type(error).__name__)
            raise Empty from None


class _Consumer(Consumer):
    """Waits for a broker for as long as it takes, looking every few seconds, and says so twice: when it is away, and when it is back."""

    def ensure_connected(self, conn: Any) -> Any:
        away = False

        def note(error: Exception, _: float) -> None:
            nonlocal away
            if not away:
                log.warning("broker_away", error=type(error).__name__, said=str(error)[:200])
            away = True

        conn.ensure_connection(
            note, interval_start=1, interval_step=1, interval_max=_LONGEST_BROKER_DELAY, callback=maybe_shutdown
        )
        if away:
            log.info("broker_back")
        return conn


redis.Transport.Channel = _Channel
# An error that a broker answers with (MISCONF, READONLY, NOREPLICAS …) passes as one that hangs up does. To Celery it is a fault of ours,
# which ends the worker.
redis.Transport.connection_errors += (ResponseError,)

app = Celery("bequest", broker=settings().broker_url)
app.conf.update(
    task_default_queue=settings().queue,
    task_acks_late=False,  # the database's lease, not the broker, knows who runs what
    task_ignore_result=True,
    result_backend=None,
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,  # else a wake-up waits behind a long job while another worker idles
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_consumer=_Consumer,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 25,
    },
)


@app.task(name=WAKE)
def wake() -> None:
    """Claims and runs jobs until nothing is runnable here."""
    global _running
    while not _draining.is_set() and _has_room():
        since = now()  # the lease begins later
        try:
            device = _known_device()
            claim = jobs.claim(worker_id, device, _backends(device))
        except supervisor.AWAY as error:
            log.warning("claim_failed", error=type(error).__name__)
            return  # the sweep sends another wake-up once the database is back
        if claim is None:
            break
        _running = claim.job_id
        try:
            supervisor.run(claim, since, trainers, _draining.is_set)
        except Exception:  # a fault of ours: the lease runs out and the sweep counts a failure
            log.exception("attempt_broke", job_id=claim.job_id)
        finally:
            _running = None
    if not _draining.is_set():
        trainers.warm()


@signals.setup_logging.connect
def _log_as_we_do(**_: Any) -> None:
    logs.configure()


@signals.worker_ready.connect
def _begin(**_: Any) -> None:
    """In the main thread, so that the spare is its child."""
    log.info("worker_ready", worker=worker_id)
    threading.Thread(target=_keep_house, name="house", daemon=True).start()
    trainers.warm()


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    """SIGTERM: the supervisor sees the flag, has the trainer save a checkpoint, and gives the job back."""
    _draining.set()


@signals.worker_shutdown.connect
def _leave(**_: Any) -> None:
    trainers.close()
    try:
        with transaction() as session:
            workers.goodbye(session, worker_id)
    except Exception as error:  # the row grows old by itself
        log.warning("goodbye_not_said", error=type(error).__name__)


def _keep_house() -> None:
    """Says that this worker lives, sweeps, and tidies up; a database that is away is tried again at the next turn."""
    greeted = tidied = -1e9
    while not _draining.wait(settings().sweep_seconds):
        try:
            if time.monotonic() > greeted + settings().beat_seconds:
                _say_hello()
                greeted = time.monotonic()
            jobs.sweep()
            if time.monotonic() > tidied + _TIDY_SECONDS:
                folders.forget_finished(_is_over)
                folders.forget_half_written()
                artifacts.collect_unnamed()
                tidied = time.monotonic()
        except Exception as error:  # whatever it is, the next turn may fare better
            log.warning("housekeeping_failed", error=type(error).__name__)


def _known_device() -> str:
    """The device that jobs run on here, as a trainer has reported it; until then the CPU."""
    global _device, _has_told
    told = trainers.device()
    _device, _has_told = told or _device, _has_told or told is not None
    return _device


def _backends(device: str) -> Sequence[str]:
    """Those that jobs may have here. Before a trainer has said what it runs on, it may yet be a GPU, which JAX might not see."""
    return backends.installed(device) if _has_told else (backends.default(),)


def _say_hello() -> None:
    device = _known_device()
    name, memory = machine.accelerator() if device == "gpu" else (None, machine.main_memory())
    with transaction() as session:
        workers.hello(
            session,
            worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=device,
            device_name=name,
            backends=_backends(device),
            memory_bytes=memory,
            version=version("bequest"),
            job_id=_running,
            has_room=_has_room(),
        )


def _is_over(job_id: str) -> bool:
    try:
        with transaction() as session:
            return is_terminal(jobs.get(session, job_id).state)
    except NotFound:
        return True


def _has_room() -> bool:
    """Whether another job may be claimed. The reason why not is logged once, and shown by the worker's row."""
    global _room
    before, _room = _room, machine.has_room()
    if before and not _room:
        log.error("disk_almost_full", folder=str(settings().jobs_dir))
    return _room
