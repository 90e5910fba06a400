"""21: clients that begin and never finish: heads, bodies, uploads. Beside them an ordinary client, and thousands of bad requests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import resource
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from app import jobs
from app.db import transaction
from app.settings import settings
from tests.faults import requests_bad
from tests.faults.figures import Figures, summary
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario
from tests.inference import inference_program

HEADS, BODIES, UPLOADS = 1_100, 48, 12
FILES = 1_024  # the usual limit
MOST_HEALTH_SECONDS, MOST_SECONDS = 1.0, 5.0
MOST_GROWTH_BYTES, MOST_LOG_BYTES = 100 * 2**20, 10 * 10**6
LEAST_SECONDS = 25.0  # a head's time and more
SETTLED_SECONDS = 45.0  # a body's time and more

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def slow(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """`size` bad requests, while all the slow clients are there; each that is sent away comes back."""
    assert rig.api is not None
    rig.restart_api()  # as few files as are usual, and its memory as at the start
    pid, log = rig.api.process.pid, rig.api.program.log
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    connect = requests_bad.at_socket(rig.folder.run / "api.sock")
    with tempfile.TemporaryDirectory(prefix="bq-", dir="/tmp") as folder:
        model = requests_bad.finished_job({"kind": "chain"}, Path(folder))
    for path in ("/v1/catalog", "/openapi.json", "/readyz"):  # what is made at its first use
        rig.request("GET", path)
    rest, said = _resident(pid), log.stat().st_size
    crowd = _Crowd(rig.folder.run / "api.sock", f"job:{model}")
    watch = _Watch(rig)
    with crowd.there(), watch.looking():
        began = time.monotonic()
        with inference_program(rig.folder.run, **rig.environment):
            found = requests_bad.run(chance.randrange(2**31), size, connect)
        while time.monotonic() < began + LEAST_SECONDS:
            time.sleep(0.2)
        highest = _resident(pid)
    time.sleep(SETTLED_SECONDS)
    figures.faults += crowd.come + found["requests"]
    figures.violations += found["violations"]
    figures.notes |= {
        "slow clients": crowd.come,
        "healthz, s": summary(watch.health),
        "ordinary requests, s": summary(watch.ordinary),
        "bad requests": found["requests"],
        "memory, MiB": [round(bytes_ / 2**20) for bytes_ in (rest, highest, _resident(pid))],
        "log, kB": round((log.stat().st_size - said) / 1000),
    }
    with transaction() as session:
        jobs.delete(session, model)  # it never ran: nothing for the checker
    for number in (HEADS, BODIES, UPLOADS):
        there = crowd.most.get(number, 0)
        figures.expect(there >= 0.8 * number, f"{there} of {number} slow clients", late=True)
    health, ordinary = max(watch.health) / rig.patience, max(watch.ordinary) / rig.patience
    figures.expect(health <= MOST_HEALTH_SECONDS, f"/healthz took {max(watch.health):.1f} s", late=True)
    figures.expect(ordinary <= MOST_SECONDS, f"an ordinary request took {max(watch.ordinary):.1f} s", late=True)
    figures.expect(not watch.refused, f"ordinary requests were refused: {watch.refused[:5]}")
    growth = _resident(pid) - rest
    figures.expect(growth <= MOST_GROWTH_BYTES, f"the API kept {growth / 2**20:.0f} MiB")
    logged = log.stat().st_size - said
    figures.expect(logged <= MOST_LOG_BYTES, f"the log grew by {logged / 1e6:.1f} MB")
    left = list((settings().store / "tmp").iterdir())
    figures.expect(not left, f"{len(left)} files were left in store/tmp")


class _Crowd:
    """All slow clients, in a thread with a loop of its own. `most` is how many of a kind were connected at once."""

    def __init__(self, socket: Path, model: str) -> None:
        self._socket, self._model = socket, model
        self.come = 0
        self.most: dict[int, int] = {}

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._all(),))
        thread.start()
        try:
            time.sleep(2)
            yield
        finally:
            loop.call_soon_threadsafe(self._over.set)
            thread.join()
            loop.close()

    async def _all(self) -> None:
        self._over = asyncio.Event()
        body = settings().max_predict_bytes - 1
        predict = _head(f"/v1/models/{self._model}/predict", "application/json", body)
        upload = _head("/v1/datasets", "multipart/form-data; boundary=x", 100 * 2**20)
        part = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\na,b\n'
        kinds = [
            (HEADS, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ", 0),
            (BODIES, predict + b"[", body - 1),
            (UPLOADS, upload + part, 40 * 2**20),
        ]
        slow = [asyncio.create_task(self._one(*kind)) for kind in kinds for _ in range(kind[0])]
        await self._over.wait()
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    async def _one(self, kind: int, start: bytes, more: int) -> None:
        """Sends `start` and `more` blanks as fast as they are taken, and then nothing, until it is sent away; and again."""
        now = self._now = getattr(self, "_now", dict.fromkeys((HEADS, BODIES, UPLOADS), 0))
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                self.come += 1
                now[kind] += 1
                self.most[kind] = max(self.most.get(kind, 0), now[kind])
                try:
                    writer.write(start)
                    for _ in range(more // 65536):
                        writer.write(b" " * 65536)
                        await writer.drain()
                    await reader.read()
                finally:
                    now[kind] -= 1
                    writer.close()
            await asyncio.sleep(0.5)


class _Watch:
    """An ordinary client beside the crowd: how long it waits, and what it is refused."""

    def __init__(self, rig: Rig) -> None:
        self._socket = rig.folder.run / "api.sock"
        self.health: list[float] = []
        self.ordinary: list[float] = []
        self.refused: list[str] = []

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        over = threading.Event()
        threads = [
            threading.Thread(target=self._ask, args=(over, self.health, [("GET", "/healthz", {})])),
            threading.Thread(target=self._ask, args=(over, self.ordinary, ORDINARY)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _ask(self, over: threading.Event, times: list[float], requests: list[tuple[str, str, dict[str, Any]]]) -> None:
        # Tries again where as many wait to be accepted as may, as a system does by itself at a TCP port.
        transport = httpx.HTTPTransport(uds=str(self._socket), retries=5)
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
            for number in itertools.count():
                if over.wait(0.1):
                    return
                method, path, options = requests[number % len(requests)]
                began = time.monotonic()
                try:
                    status = str(client.request(method, path, **options).status_code)
                except httpx.TransportError as error:
                    status = type(error).__name__
                times.append(time.monotonic() - began)
                if status != "200":
                    self.refused.append(f"{method} {path}: {status}")


ORDINARY: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/jobs", {}),
    ("POST", "/v1/jobs/validate", {"json": {"kind": "chain"}}),
    ("GET", "/v1/datasets", {}),
    ("GET", "/v1/catalog", {}),
]


def _head(path: str, media_type: str, length: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
    return head.encode()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


SCENARIOS = (
    Scenario(
        21,
        "slow clients",
        slow,
        "deadlines of heads and bodies, the bound on connections, the budget of bytes on their way",
        300,
        20_000,
        alone=True,
    ),
)
