"""Bulkheads: each kind of long work has a few threads of its own, so that it keeps no other request waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

Result = TypeVar("Result")
Lane = Literal["large bodies", "uploads", "predictions", "traces", "readiness"]

# Large bodies take memory many times their length; uploads a process each; the inference program answers one at a
# time, predictions and traces of networks alike.
_LANES: dict[Lane, int] = {"large bodies": 1, "uploads": 4, "predictions": 8, "traces": 2, "readiness": 2}
_limiters: RunVar[dict[Lane, anyio.CapacityLimiter]] = RunVar("limiters")


async def apart(lane: Lane, function: Callable[..., Result], *arguments: object) -> Result:
    """The result of `function`, run in a thread of that lane; further calls wait until one is free."""
    try:
        limiters = _limiters.get()
    except LookupError:
        _limiters.set(limiters := {name: anyio.CapacityLimiter(most) for name, most in _LANES.items()})
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiters[lane])
