"""A whole service of its own on this machine, whose programs may be killed, frozen, starved and started again.

Real processes, a real Postgres and a real Valkey (as `bequest serve` runs them), in a temporary folder. Only pids that the rig
started are ever signalled. It writes down what the service has acknowledged; `checker.py` holds the service to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

import httpx
import psycopg

from app import embedded, programs
from app.programs import NotStarted, Program, Running
from app.serve import api_command, worker_command
from tests.faults import witness
from tests.faults.proxy import Proxy
from tests.faults.record import Cancel, Record
from tests.faults.timing import FAST, PRODUCTION, Timing

ROOT = Path(__file__).resolve().parents[2]
TERMINAL = ("succeeded", "failed", "cancelled")
ORPHAN_SECONDS = 1.0
"""So long after its worker a trainer may live, on a machine that is not busy with other work: see `Rig.patience`."""


class Skipped(Exception):
    """This machine cannot show it. The message says why."""


@dataclass
class Worker:
    """A worker process and what may be done to it."""

    running: Running
    name: str
    frozen: bool = False

    @property
    def pid(self) -> int:
        return self.running.process.pid

    def alive(self) -> bool:
        return self.running.alive()

    def kill(self) -> None:
        """kill -9 of the worker alone: its trainers must die by themselves."""
        self.running.process.kill()
        self.running.process.wait()

    def freeze(self) -> None:
        self.running.process.send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self.running.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def drain(self) -> None:
        self.running.process.send_signal(signal.SIGTERM)

    def trainers(self) -> list[int]:
        """Its children: the running trainer and the spare."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []

    def said(self) -> str:
        return self.running.program.log.read_text(errors="replace")

    def is_ready(self) -> bool:
        return "worker_ready" in self.said()


class Rig:
    """Programs, the record of what they promised, and the ways to hurt them. Make it with `rig()`."""

    def __init__(
        self,
        folder: embedded.Folder,
        timing: Timing,
        environment: dict[str, str] | None = None,
        patience: float = 1.0,
    ):
        """`patience`: every time of the protocol and every limit of time is so many times longer."""
        self.folder, self.timing, self.patience = folder, timing.times(patience), patience
        self.is_production = timing == PRODUCTION
        self.record = Record()
        self.workers: list[Worker] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BEQUEST_")},
            "DATABASE_URL": embedded.database_url(folder),
            "BROKER_URL": embedded.broker_url(folder),
            "INFERENCE_URL": f"unix://{folder.run / 'inference.sock'}",  # nobody listens, but where a scenario starts it
            "BEQUEST_DATA": str(folder.home),
            "BEQUEST_PLUGINS": "tests.faults",
            "BEQUEST_LEASE_SECONDS": str(self.timing.lease),
            "BEQUEST_BEAT_SECONDS": str(self.timing.heartbeat),
            "BEQUEST_SWEEP_SECONDS": str(self.timing.sweep),
            "BEQUEST_GRACE_SECONDS": str(self.timing.grace),
            "BEQUEST_SPARE_KERAS": "0",
            "BEQUEST_MAX_QUEUED": "1000000",
            "BEQUEST_LOG_FORMAT": "json",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self.data = folder.home
        self._count = 0
        self.postgres = self.broker = self.api = None  # type: Running | None
        everyone = httpx.Limits(max_connections=None, max_keepalive_connections=None)  # see app/inference.py
        transport = httpx.HTTPTransport(uds=str(folder.run / "api.sock"), limits=everyone)
        self._client = httpx.Client(transport=transport, base_url="http://localhost", timeout=30 * patience)

    # ------------------------------------------------------------ the programs

    def start(self) -> None:
        """Servers, schema and API."""
        self.postgres = embedded.start_postgres(self.folder)
        self.broker = embedded.start_valkey(self.folder)
        os.environ.update(self.environment)
        from app import db, queue
        from app.settings import settings

        for cached in (settings, db.engine, queue._sender, queue._redis):
            cached.cache_clear()
        db.migrate()
        self.execute(witness.WATCH)
        self.start_api()

    def start_api(self, **environment: str) -> None:
        socket = self.folder.run / "api.sock"
        socket.unlink(missing_ok=True)
        command = (*api_command(), "--uds", str(socket), "--timeout-graceful-shutdown", "1")
        log = self.folder.logs / "api.log"
        program = Program("the API", command, self.environment | environment, log, self._api_answers)
        self.api = programs.start(program)
        self.api.wait_ready(60)

    def restart_api(self, **environment: str) -> None:
        assert self.api is not None
        self.api.kill()
        self.start_api(**environment)

    def command(self) -> tuple[str, ...]:
        """A worker's."""
        return worker_command()

    def start_worker(self, wait: bool = True, **environment: str) -> Worker:
        """Called from the main thread: the worker dies with the thread that started it."""
        self._count += 1
        name = f"worker-{self._count}"
        program = Program(name, self.command(), self.environment | environment, self.folder.logs / f"{name}.log")
        worker = Worker(programs.start(program), name)
        self.workers.append(worker)
        if wait:
            self.wait(worker.is_ready, 60, f"{name} to be ready")
        return worker

    def keep_workers(self, count: int, **environment: str) -> None:
        """Starts workers until so many are alive and not frozen; does not wait for them."""
        self.workers = [worker for worker in self.workers if worker.alive()]
        for _ in range(count - sum(not worker.frozen for worker in self.workers)):
            self.start_worker(wait=False, **environment)

    def busy(self) -> list[Worker]:
        """Those that run a job and can be hurt."""
        owners = {
            int(name.split("-")[-2]) for (name,) in self.rows("SELECT worker_id FROM jobs WHERE state = 'running'")
        }
        return [worker for worker in self.workers if worker.pid in owners and worker.alive() and not worker.frozen]

    def stop_workers(self) -> None:
        for worker in self.workers:
            if worker.alive():
                worker.thaw()
                worker.kill()
        self.workers.clear()

    def stop(self) -> None:
        self.stop_workers()
        self._leave_small_disk()
        self._client.close()
        for server in (self.api, self.broker, self.postgres):
            if server is not None:
                with contextlib.suppress(ProcessLookupError):
                    server.process.send_signal(signal.SIGCONT)
                server.stop(10)

    def reset(self) -> None:
        """Nothing in the database, the broker, the store and the record; no worker."""
        self.stop_workers()
        tables = [name for (name,) in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        names = ", ".join(f'"{name}"' for name in tables if name != "alembic_version")
        self.execute(f"TRUNCATE {names} CASCADE")  # type: ignore[arg-type]
        self._leave_small_disk()
        for part in ("store", "jobs", "cache"):
            shutil.rmtree(self.data / part, ignore_errors=True)
            (self.data / part).mkdir()
        for log in self.folder.logs.glob("worker-*.log"):
            log.unlink()
        from app import queue

        queue._redis().flushall()
        queue._asleep_until[0] = 0.0
        self.record = Record()

    # ------------------------------------------------------------ faults

    def note(self, fault: str) -> None:
        """One more fault was injected."""
        self.record.faults[fault] += 1

    def kill_worker(self, worker: Worker) -> None:
        self.strike_dead(worker.pid, "kill -9 worker")
        worker.running.process.wait()

    def strike_dead(self, pid: int, fault: str) -> None:
        """kill -9 of a worker alone. A second later all that it had started must be dead."""
        family = witness.family(pid)
        self.record.deaths.append((pid, time.time()))
        self.note(fault)
        os.kill(pid, signal.SIGKILL)

        def look() -> None:
            self.record.orphans |= witness.survivors(family)

        looking = threading.Timer(self.patience * ORPHAN_SECONDS, look)
        looking.daemon = True
        looking.start()

    def proxy(self, name: str) -> Proxy:
        """A middleman before Postgres; `through` gives a worker its address."""
        at, port = self.folder.run / name, ".s.PGSQL.5432"
        return Proxy(at / port, self.folder.run / "pg" / port, speaks_postgres=True)

    def through(self, name: str) -> dict[str, str]:
        """The environment of a program that reaches Postgres through the proxy of that name."""
        address = self.environment["DATABASE_URL"].partition("?")[0]
        return {"DATABASE_URL": f"{address}?host={quote(str(self.folder.run / name), safe='')}"}

    def taken_up_again(self) -> tuple[list[float], list[float]]:
        """For each attempt whose worker was killed, frozen or cut off: the seconds from that until the job was queued again, and until
        its next attempt began."""
        lost = self.rows(
            "SELECT worker_id, extract(epoch FROM started_at)::float, extract(epoch FROM ended_at)::float,"
            " (SELECT extract(epoch FROM next.started_at)::float FROM attempts AS next"
            "   WHERE next.job_id = lost.job_id AND next.attempt = lost.attempt + 1)"
            " FROM attempts AS lost WHERE outcome = 'worker_lost'"
        )
        requeued, begun = [], []
        for worker, started, ended, again in lost:
            deaths = [at for pid, at in self.record.deaths if pid == int(worker.split("-")[-2]) and at <= ended]
            for at in deaths[-1:]:
                if at >= started - 1:  # at its claim: struck before that arrived
                    requeued.append(ended - at)
                    begun += [again - at] if again is not None else []
        return requeued, begun

    def tried_again(self, outcome: str) -> list[float]:
        """For each attempt that ended so, and was not the job's last: the seconds until the next one began."""
        waits = self.rows(
            "SELECT extract(epoch FROM next.started_at - over.ended_at)::float FROM attempts AS over"
            " JOIN attempts AS next ON next.job_id = over.job_id AND next.attempt = over.attempt + 1 WHERE over.outcome = %s",
            outcome,
        )
        return [seconds for (seconds,) in waits]

    def kill_postgres(self, how: str) -> float:
        """Ends it as `how` says and brings it back; the seconds until it answered again."""
        assert self.postgres is not None
        self.note(f"postgres {how}")
        began = time.monotonic()
        if how == "kill -9 backend":
            pid = self.rows(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1"
            )
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid[0][0]), signal.SIGKILL)
        else:
            number = {"kill -9": signal.SIGKILL, "fast stop": signal.SIGINT, "immediate stop": signal.SIGQUIT}[how]
            self.postgres.process.send_signal(number)
            self.postgres.process.wait(60)
            self.wait(self._postgres_starts, 60, "Postgres to start again")
        self.wait(self._postgres_answers, 60, "Postgres to answer")
        return time.monotonic() - began

    def kill_broker(self, empty: bool) -> None:
        assert self.broker is not None
        self.note("broker kill -9, empty" if empty else "broker kill -9")
        self.broker.kill()
        if empty:
            shutil.rmtree(self.folder.home / "valkey")

    def start_broker(self) -> None:
        self.broker = embedded.start_valkey(self.folder)

    def kill_api(self) -> None:
        assert self.api is not None
        self.note("kill -9 API")
        self.api.process.kill()
        self.api.process.wait()

    def use_small_disk(self, mebibytes: int) -> None:
        """The service's files lie on a disk of that size, until the next reset.

        Raises:
            Skipped: only root may mount one.
        """
        small = self.folder.home / "small"
        small.mkdir(exist_ok=True)
        line = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=711", "tmpfs", str(small)]
        if subprocess.run(line, capture_output=True, check=False).returncode:
            raise Skipped("a small disk is a tmpfs, which only root may mount here")
        self._use_data(small)

    def _leave_small_disk(self) -> None:
        if self.data == self.folder.home:
            return
        small = self.data
        self._use_data(self.folder.home)
        subprocess.run(["umount", "-l", str(small)], check=True)

    def _use_data(self, data: Path) -> None:
        from app.settings import settings

        self.data = data
        self.environment["BEQUEST_DATA"] = os.environ["BEQUEST_DATA"] = str(data)
        settings.cache_clear()
        self.restart_api()

    # ------------------------------------------------------------ a client

    def request(self, method: str, path: str, excused: bool = False, **options: Any) -> httpx.Response | None:
        """The answer, or None where the connection broke. A 5xx is written down unless the fault `excused` it."""
        try:
            answer = self._client.request(method, path, **options)
        except httpx.TransportError as error:
            self.record.answers[type(error).__name__] += 1
            return None
        self.record.answers[answer.status_code] += 1
        if answer.status_code >= 500 and not (excused and answer.status_code in (503, 507)):
            self.record.faulty.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def submit(self, excused: bool = False, key: str | None = None, **spec: Any) -> str | None:
        """Submits a chain; its id once that is acknowledged, else None."""
        body = {"kind": "chain", "max_attempts": 10, **spec}
        headers = {"idempotency-key": key} if key else {}
        began = time.monotonic()
        answer = self.request("POST", "/v1/jobs", excused, json=body, headers=headers)
        self.record.submit_seconds.append(time.monotonic() - began)
        if answer is None or answer.status_code != 202:
            return None
        job_id = str(answer.json()["id"])
        self.record.submitted[job_id] = body
        return job_id

    def cancel(self, job_id: str, discard: bool = False, excused: bool = False) -> int | None:
        """Asks for the job's end; the status of the answer."""
        asked = time.time()
        self.record.cancels_asked.add(job_id)
        answer = self.request("POST", f"/v1/jobs/{job_id}/cancel", excused, json={"discard": discard})
        if answer is None:
            return None
        if answer.status_code in (200, 202):
            self.record.cancels.append(Cancel(job_id, asked, time.time(), answer.json()["state"]))
        return answer.status_code

    # ------------------------------------------------------------ looking and waiting

    def connection(self) -> psycopg.Connection[Any]:
        return psycopg.connect(embedded.database_url(self.folder), connect_timeout=5, autocommit=True)

    def rows(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        with self.connection() as connection:
            return connection.execute(query, parameters).fetchall()

    def execute(self, statement: LiteralString, *parameters: object) -> None:
        with self.connection() as connection:
            connection.execute(statement, parameters)

    def unfinished(self) -> int:
        return int(self.rows("SELECT count(*) FROM jobs WHERE finished_at IS NULL")[0][0])

    def lost_their_leases(self, jobs: Sequence[str]) -> bool:
        """Whether each has an attempt whose lease ran out: where no worker was hurt, for want of a processor."""
        query: LiteralString = "SELECT DISTINCT job_id FROM attempts WHERE outcome = 'worker_lost' AND job_id = ANY(%s)"
        return len(self.rows(query, list(jobs))) == len(set(jobs))

    def waits_for_retry(self) -> bool:
        """Whether a job is held back after a failure, as it ought to be: for 300 s, where it failed often."""
        return bool(self.rows("SELECT 1 FROM jobs WHERE state = 'queued' AND run_after > clock_timestamp() LIMIT 1"))

    def settle(self, seconds: float, workers: int = 2) -> None:
        """Waits until every job has ended, with workers to run them. What has not ended in time is the checker's to find.

        `seconds`, times `patience`, count only while no job waits for its retry.
        """
        seconds, last = self.patience * seconds, time.monotonic()
        while self.unfinished() and seconds > 0:
            self.keep_workers(workers)
            time.sleep(0.2)
            before, last = last, time.monotonic()
            seconds -= 0 if self.waits_for_retry() else last - before

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """What `condition` returned once it was true.

        Raises:
            TimeoutError: it was not, within so many seconds times `patience`.
        """
        until = time.monotonic() + self.patience * seconds
        while not (found := condition()):
            if time.monotonic() > until:
                raise TimeoutError(f"waited {self.patience * seconds:.0f} s in vain for {what}")
            time.sleep(0.02)
        return found

    def said_by_workers(self, *events: str) -> list[dict[str, Any]]:
        """Lines of their logs with those events, such as {event, job_id, attempt, ending}."""
        found = []
        for log in self.folder.logs.glob("worker-*.log"):
            for line in log.read_text(errors="replace").splitlines():
                if any(f'"{event}"' in line for event in events):
                    with contextlib.suppress(ValueError):  # cut off by a kill
                        found.append(json.loads(line))
        return [line for line in found if line["event"] in events]

    def orphans(self) -> list[int]:
        """Trainers of this rig, and what they have started. Asked when no worker is alive."""
        return witness.trainers(self.data / "home")

    def _api_answers(self) -> bool:
        try:
            return self._client.get("/healthz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def _postgres_starts(self) -> bool:
        try:
            self.postgres = embedded.start_postgres(self.folder)
        except NotStarted:  # its predecessor's children are still leaving
            return False
        return True

    def _postgres_answers(self) -> bool:
        try:
            return bool(self.rows("SELECT 1"))
        except psycopg.OperationalError:
            return False


@contextlib.contextmanager
def rig(
    timing: Timing = FAST,
    environment: dict[str, str] | None = None,
    rig_type: type[Rig] = Rig,
    patience: float = 1.0,
) -> Iterator[Rig]:
    """A started rig in a folder of its own; nothing of it is left afterwards."""
    home = Path(tempfile.mkdtemp(prefix="bqf-", dir=embedded.short_folder()))
    home.chmod(0o755)
    before = dict(os.environ)
    try:
        with embedded.folder(home) as folder:
            service = rig_type(folder, timing, environment, patience)
            try:
                service.start()
                yield service
            finally:
                service.stop()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home, ignore_errors=True)


def seeded(seed: int, *words: object) -> random.Random:
    """Chance that a seed replays: the same for the same words."""
    return random.Random(" ".join(map(str, (seed, *words))))
