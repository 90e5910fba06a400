"""20: more requests than are good for it: open-loop submits, pollers and readers of events, with workers that only count."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from app import programs
from app.programs import Program
from tests.faults import bare
from tests.faults.figures import Figures, summary
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario

RATES = (50, 100, 200)  # submits a second
POLLERS, READERS, WORKERS = 200, 50, 4
PATIENCE_SECONDS = 60


def loaded(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """`size` seconds at each rate. A submit counts from when it was due, so that a service which falls behind shows it; what it
    cannot do it may refuse, with 429."""
    figures.may_fail.add("loss_not_finite")  # as one in ten of the bare workers' jobs does
    workers = programs.start(
        Program(
            "bare workers",
            (sys.executable, "-m", "tests.faults.bare", str(WORKERS)),
            rig.environment,
            rig.folder.logs / "bare.log",
        )
    )
    try:
        for rate in RATES:
            times: dict[int, list[float]] = {}
            answers: Counter[int | str] = Counter()
            asyncio.run(_at(rig, rate, size, times, answers))
            rig.note(f"{rate} submits a second")
            figures.notes[f"accepted at {rate}/s after, s"] = summary(times.get(202, []))
            figures.notes[f"refused at {rate}/s after, s"] = summary(times.get(429, []))
            figures.notes[f"answers at {rate}/s"] = {
                str(status): count for status, count in sorted(answers.items(), key=str)
            }
            for what in ("broken", "given up"):
                figures.expect(not answers[what], f"{answers[what]} connections were {what} at {rate}/s")
        rig.wait(lambda: not rig.unfinished(), 900, "the load to be worked off")
    finally:
        workers.kill()


async def _at(rig: Rig, rate: int, seconds: int, times: dict[int, list[float]], answers: Counter[int | str]) -> None:
    socket = rig.folder.run / "api.sock"
    ids: list[str] = []

    async def ask(request: bytes, ends: bool = True) -> tuple[int, bytes]:
        """0 where no answer came in time or whole. A stream that does not end lasts as long as its job waits and runs."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                status, body = await _answer(socket, request)
        except TimeoutError:
            answers["given up"] += ends
        except (OSError, ValueError):
            answers["broken"] += 1
        else:
            if status >= 500:
                rig.record.faulty.append(f"{request[:40]!r}: {status} {body[:200]!r}")
            return status, body
        return 0, b""

    async def submit(due: float) -> None:
        status, body = await ask(SUBMIT)
        if status:
            times.setdefault(status, []).append(time.monotonic() - due)
            answers[status] += 1
        if status == 202:
            ids.append(json.loads(body)["id"])
            rig.record.submitted[ids[-1]] = bare.SPEC

    async def follow(pause: float, path: str, accept: str) -> None:
        while True:
            await asyncio.sleep(pause)
            if ids:
                await ask(_get(f"/v1/jobs/{random.choice(ids[-100:])}{path}", accept), ends=not path)

    crowd = [asyncio.create_task(follow(1, "", "application/json")) for _ in range(POLLERS)]
    crowd += [asyncio.create_task(follow(0.1, "/events", "text/event-stream")) for _ in range(READERS)]
    began = time.monotonic()
    submits = []
    for number in range(rate * seconds):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        submits.append(asyncio.create_task(submit(due)))
    await asyncio.gather(*submits)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


async def _answer(socket: Path, request: bytes) -> tuple[int, bytes]:
    """Status and body. By hand, since a whole HTTP client for each of 250 would be slower than the service that it measures.

    Raises:
        OSError: the connection broke.
        ValueError: what came is no answer.
    """
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head[9:12]), body
    finally:
        writer.close()


def _get(path: str, accept: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: {accept}\r\n\r\n".encode()


_BODY = json.dumps(bare.SPEC)
SUBMIT = (
    "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    f"content-length: {len(_BODY)}\r\n\r\n{_BODY}"
).encode()


SCENARIOS = (
    Scenario(
        20, "load", loaded, "a submission is one transaction; wakes, polls and events cost little", 0, 60, alone=True
    ),
)
