"""`bequest serve`: every program of the service as one tree, started in order, restarted when it dies, stopped in order."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app import embedded, programs
from app.embedded import Folder, FolderRefused
from app.programs import NotOurs, NotStarted, Program, Running, own_folder
from app.settings import settings

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_LONGEST_DELAY = 30.0
_PROVEN_SECONDS = 60.0
_STOP_SECONDS = 25.0
_FOR_THE_SERVERS = 6.0  # of those, kept for inference, broker and database
_FOR_THE_API = 5.0  # it finishes requests in 2 s; one that is frozen would take all of them
_GRACE_SECONDS = "12"  # for a checkpoint, so that workers are gone before the servers must go
_SAME_REQUEST_SECONDS = 0.5  # a terminal that closes sends two signals, an impatient finger some more
_SKIP_SECONDS = 5.0
_API_FROZEN_AFTER = 20.0
_INFERENCE_FROZEN_AFTER = 60.0  # while it loads Keras, or a large model, it may be mute for a while
_INSTANCE = "bequest-instance"


@dataclass(frozen=True)
class Options:
    host: str = "127.0.0.1"
    port: int = 8000
    data: Path | None = None
    workers: int = 1
    insecure: bool = False


@dataclass
class _Child:
    """A program that is meant to run."""

    running: Running
    delay: float = 1.0
    due: float | None = None

    def tend(self) -> None:
        """Starts it again when it has died or is frozen, later each time it dies young."""
        program = self.running.program
        if self.running.is_frozen():
            self.running.end_frozen()
            ended = f"{program.name} has not answered for {program.frozen_after:.0f} s and was killed"
        elif self.running.alive():
            return
        else:
            ended = f"{program.name} ended with status {self.running.process.returncode}"
        clock = time.monotonic()
        if self.due is None:
            if clock - self.running.started > _PROVEN_SECONDS:
                self.delay = 1.0
            self.due = clock + self.delay
            _say(f"{ended}; again in {self.delay:.0f} s. Log: {program.log}")
            self.delay = min(_LONGEST_DELAY, 2 * self.delay)
        elif clock >= self.due:
            try:
                self.running = programs.start(program)
            except (NotStarted, NotOurs) as fault:
                _say(str(fault))
            self.due = None


@dataclass
class _Requests:
    """What signals have asked for. Signals in quick succession are one request.

    The first request stops. After that only Ctrl-C counts: one asks for the warning, another soon after the warning skips the checkpoint.
    """

    stop: bool = False
    skip: bool = False
    to_warn: bool = False
    _last: float = float("-inf")
    _warned: float = float("-inf")

    def hear(self, number: int, *_: object) -> None:
        """The handler. It only takes notes, since it may interrupt a write."""
        clock = time.monotonic()
        another = clock - self._last > _SAME_REQUEST_SECONDS
        self._last = clock
        if not self.stop:
            self.stop = True
        elif number == signal.SIGINT and another:
            self.skip = clock - self._warned < _SKIP_SECONDS
            self.to_warn, self._warned = not self.skip, clock

    def warn(self, seconds: float) -> None:
        """Says at the second request, once, the price of a third; the checkpoint has `seconds` left."""
        if self.to_warn:
            self.to_warn = False
            _say(
                f"the running job, if any, is still writing its checkpoint ({seconds:.0f} s at most). Press Ctrl-C again within "
                f"{_SKIP_SECONDS:.0f} s to give that up: the job goes back to its last checkpoint and an attempt is charged"
            )


@dataclass
class _Service:
    """The running programs, in the order in which they were started."""

    servers: list[_Child] = field(default_factory=list)
    workers: list[_Child] = field(default_factory=list)
    front: list[_Child] = field(default_factory=list)
    requests: _Requests = field(default_factory=_Requests)

    def told_to_stop(self) -> bool:
        return self.requests.stop

    def tend(self) -> None:
        for child in (*self.servers, *self.workers, *self.front):
            child.tend()
            programs.cut(child.running.program.log)

    def stop(self) -> None:
        """API and workers first, so that a running job is checkpointed and given back while there is a database to write to."""
        began = time.monotonic()
        until = began + _STOP_SECONDS
        first = [*self.front, *self.workers]
        for child in first:
            child.running.ask_to_stop()
        while any(child.running.alive() for child in first) and not self.requests.skip:
            left = until - _FOR_THE_SERVERS - time.monotonic()
            if left < 0:
                break
            if time.monotonic() > began + _FOR_THE_API:
                for child in self.front:
                    if child.running.alive():
                        child.running.kill()
            if any(child.running.alive() for child in self.workers):
                self.requests.warn(left)
            time.sleep(0.05)
        for child in first:
            child.running.kill()
        for child in reversed(self.servers):
            child.running.stop(min(4.0, max(0.5, until - time.monotonic())))


def serve(options: Options) -> int:
    """Runs the service until SIGTERM or Ctrl-C; the exit status."""
    service = _Service()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, service.requests.hear)
    programs.set_limits()
    try:
        _check(options)
        with embedded.folder(options.data or settings().data) as folder:
            try:
                _start(service, options, folder)
                while not service.told_to_stop():
                    service.tend()
                    time.sleep(0.2)
                _say("stopping: the running job, if any, is checkpointed and goes on at the next start")
            finally:
                service.stop()
    except (FolderRefused, NotStarted, NotOurs) as fault:
        if service.told_to_stop():
            return 0
        _say(f"bequest: {fault}", error=True)
        return 2
    _say("stopped")
    return 0


def _start(service: _Service, options: Options, folder: Folder) -> None:
    environment = _environment(folder)
    if options.host not in _LOOPBACK:
        environment.setdefault("BEQUEST_ALLOWED_HOSTS", "*")  # by which names others call this machine, only they know
    if "DATABASE_URL" not in environment:
        service.servers.append(_Child(embedded.start_postgres(folder)))
        environment["DATABASE_URL"] = embedded.database_url(folder)
    if "BROKER_URL" not in environment:
        service.servers.append(_Child(embedded.start_valkey(folder)))
        environment["BROKER_URL"] = embedded.broker_url(folder)
    if "INFERENCE_URL" not in environment:
        environment["INFERENCE_URL"] = f"unix://{folder.run / 'inference.sock'}"
        service.servers.append(_Child(programs.start(_inference(folder, environment))))
    if service.told_to_stop():
        return
    _migrate(environment)
    for index in range(options.workers):
        service.workers.append(_Child(programs.start(_worker(folder, environment, index, options.workers))))
    api = programs.start(_api(folder, environment, options))
    service.front.append(_Child(api))
    api.wait_ready(60, service.told_to_stop)
    address = f"http://{_for_url(options.host)}:{options.port}"
    _say(f"Bequest is ready at {address}\n  reference: {address}/docs\n  data:      {folder.home}\n  stop with Ctrl-C")
    if options.insecure and options.host not in _LOOPBACK:
        _say(
            "warning: there are no API keys yet; everybody who can reach this address can use and delete everything",
            error=True,
        )


def _check(options: Options) -> None:
    """Raises FolderRefused for what could not work, before anything is started."""
    if options.host not in _LOOPBACK and not options.insecure:
        raise FolderRefused(
            f"--host {options.host} opens the service, which has no API keys yet, to others: add --insecure if that is meant"
        )
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((options.host, options.port))
    except OSError as error:
        raise FolderRefused(
            f"cannot listen on {options.host} port {options.port} ({error.strerror}): choose another with --port"
        ) from None


def _migrate(environment: dict[str, str]) -> None:
    from app import db

    os.environ.update(environment)
    settings.cache_clear()
    db.engine.cache_clear()
    try:
        db.migrate()
    except Exception as error:
        raise NotStarted(
            f"the database at DATABASE_URL could not be brought up to date ({type(error).__name__}): {str(error).splitlines()[0]}"
        ) from error
    finally:
        db.engine().dispose()


# ---------------------------------------------------------------- the programs


def own_environment(data: Path) -> dict[str, str]:
    """This process's, for a program that works in another folder: modules are not taken from there, and paths are absolute."""
    own = {**programs.safe_path(os.environ), "BEQUEST_DATA": str(data)}
    if roots := settings().file_roots:
        own["BEQUEST_FILE_ROOTS"] = ",".join(str(root.absolute()) for root in roots)
    return own


def _environment(folder: Folder) -> dict[str, str]:
    given = {
        name: value
        for name, value in own_environment(folder.home).items()
        if value or name not in ("DATABASE_URL", "BROKER_URL", "INFERENCE_URL")
    }
    # PYTHONFAULTHANDLER: a frozen program writes down where it hangs, see Running.end_frozen
    return {"BEQUEST_GRACE_SECONDS": _GRACE_SECONDS, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **given}


def _api(folder: Folder, environment: dict[str, str], options: Options) -> Program:
    where = ("--host", options.host, "--port", str(options.port), "--timeout-graceful-shutdown", "2")
    instance = uuid.uuid4().hex
    address = f"http://{_for_url(options.host)}:{options.port}"
    name = next(iter(settings().allowed_hosts), "*")
    host = None if name == "*" else name
    return Program(
        "the API",
        (*api_command(), *where, "--header", f"{_INSTANCE}:{instance}"),
        environment,
        folder.logs / "api.log",
        ready=lambda: _is_ours(_healthz(address, host=host), instance),
        silent=lambda: _is_silent(address),
        frozen_after=_API_FROZEN_AFTER,
    )


def api_command() -> tuple[str, ...]:
    """The API's command line, without its address."""
    bounds = ("--http", "app.api.connections:Connection", "--ws", "none", "--backlog", str(programs.BACKLOG))
    patience = ("--timeout-keep-alive", str(programs.KEEP_ALIVE_SECONDS))
    return (
        sys.executable,
        "-m",
        "uvicorn",
        "app.main:app",
        *bounds,
        *patience,
        "--no-server-header",
        "--no-access-log",
    )


def _worker(folder: Folder, environment: dict[str, str], index: int, count: int) -> Program:
    own = dict(environment)
    if count > 1:
        threads = str(max(1, (os.cpu_count() or 1) // count))
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            own.setdefault(name, threads)
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if devices and "CUDA_VISIBLE_DEVICES" not in own:
        own["CUDA_VISIBLE_DEVICES"] = str(index % len(devices))  # one worker a device
    return Program(f"worker {index}", worker_command(), own, folder.logs / f"worker-{index}.log")


def worker_command() -> tuple[str, ...]:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
    return (sys.executable, "-m", "celery", "-A", "worker.main", "worker", "-P", "solo", "-c", "1", *quiet)


def work(data: Path) -> None:
    """Becomes a worker on that data folder. Returns only by an exception.

    Raises:
        NotOurs: the data folder belongs to another user.
        OSError: the data folder cannot be made.
    """
    own_folder(data, mode=None)  # as `serve` has closed it, here or on another machine
    os.chdir(programs.CODE)  # Celery takes modules from the folder that it works in
    command = worker_command()
    os.execve(command[0], command, own_environment(data))


def _inference(folder: Folder, environment: dict[str, str]) -> Program:
    own = {name: value for name, value in environment.items() if name not in ("DATABASE_URL", "BROKER_URL")}
    bind = environment["INFERENCE_URL"]
    return Program(
        "inference",
        (sys.executable, "-m", "worker.inference", "--bind", bind),
        own,
        folder.logs / "inference.log",
        ready=lambda: _healthz("http://inference", bind.removeprefix("unix://")) is not None,
        silent=lambda: _is_silent("http://inference", bind.removeprefix("unix://")),
        frozen_after=_INFERENCE_FROZEN_AFTER,
    )


def _healthz(address: str, socket_path: str | None = None, host: str | None = None) -> httpx.Response | None:
    """The answer of a program that lives there, called by the name `host`; None where there is none."""
    try:
        answer = _asked(address, socket_path, {"host": host} if host else {})
    except httpx.HTTPError:
        return None
    return answer if answer.status_code == httpx.codes.OK else None


def _is_silent(address: str, socket_path: str | None = None) -> bool:
    """Whether it neither answers nor refuses the connection."""
    try:
        _asked(address, socket_path)
    except httpx.TimeoutException:
        return True
    except httpx.HTTPError:
        return False
    return False


def _asked(address: str, socket_path: str | None, headers: Mapping[str, str] | None = None) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=socket_path, verify=False)  # no certificates need be read
    with httpx.Client(transport=transport, timeout=programs.ROUND_SECONDS, trust_env=False) as client:
        return client.get(f"{address}/healthz", headers=headers)


def _is_ours(answer: httpx.Response | None, instance: str) -> bool:
    """Whether the API that this program started has answered, not another service on its port, nor another project's `app`."""
    if answer is None or answer.headers.get(_INSTANCE) != instance:
        return False
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("version") == programs.version()


def _for_url(host: str) -> str:
    """An address that a client on this machine can call."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _say(text: str, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.write(text + "\n")
    stream.flush()
