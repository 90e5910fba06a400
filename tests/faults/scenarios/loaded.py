"""20: more requests than are good for it: open-loop submits, pollers and readers of events, with workers that only count."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter

import httpx

from app import programs
from app.programs import Program
from tests.faults import bare
from tests.faults.figures import Figures, summary
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario

RATES = (50, 100, 200)  # submits a second
POLLERS, READERS, WORKERS = 200, 50, 4


def loaded(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """`size` seconds at each rate. A submit counts from when it was due, so that a service which falls behind shows it."""
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
            times: list[float] = []
            answers: Counter[int | str] = Counter()
            asyncio.run(_at(rig, rate, size, times, answers))
            rig.note(f"{rate} submits a second")
            figures.notes[f"submit at {rate}/s, s"] = summary(times)
            figures.notes[f"answers at {rate}/s"] = {
                str(status): count for status, count in sorted(answers.items(), key=str)
            }
            figures.expect(not answers["broken"], f"{answers['broken']} connections broke at {rate}/s")
        rig.wait(lambda: not rig.unfinished(), 900, "the load to be worked off")
    finally:
        workers.kill()


async def _at(rig: Rig, rate: int, seconds: int, times: list[float], answers: Counter[int | str]) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    transport = httpx.AsyncHTTPTransport(uds=str(rig.folder.run / "api.sock"), limits=limits)
    ids: list[str] = []
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:

        async def submit(due: float) -> None:
            try:
                answer = await client.post("/v1/jobs", json=bare.SPEC)
            except httpx.TimeoutException:
                answers["given up"] += 1  # after a minute
                return
            except httpx.TransportError:
                answers["broken"] += 1
                return
            times.append(time.monotonic() - due)
            answers[answer.status_code] += 1
            if answer.status_code == 202:
                ids.append(answer.json()["id"])
                rig.record.submitted[ids[-1]] = bare.SPEC
            elif answer.status_code >= 500:
                rig.record.faulty.append(f"POST /v1/jobs: {answer.status_code} {answer.text[:200]}")

        async def poll() -> None:
            while True:
                await asyncio.sleep(1)
                if ids:
                    answer = await client.get(f"/v1/jobs/{random.choice(ids[-100:])}")
                    if answer.status_code >= 500:
                        rig.record.faulty.append(f"GET a job: {answer.status_code} {answer.text[:200]}")

        async def read() -> None:
            while True:
                await asyncio.sleep(0.1)
                if ids:
                    events = f"/v1/jobs/{random.choice(ids[-100:])}/events"
                    async with client.stream("GET", events, headers={"accept": "text/event-stream"}) as stream:
                        async for _ in stream.aiter_lines():
                            pass

        crowd = [asyncio.create_task(poll()) for _ in range(POLLERS)] + [
            asyncio.create_task(read()) for _ in range(READERS)
        ]
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


SCENARIOS = (
    Scenario(
        20, "load", loaded, "a submission is one transaction; wakes, polls and events cost little", 0, 60, alone=True
    ),
)
