"""`bequest examples`: a service in a temporary folder, a job for each application, and a table of verdicts, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
from rich.console import Console

from app import applications, showing


def examples(*, quick: bool, keep: bool, only: Sequence[str] = ()) -> int:
    """0 when all jobs succeeded. `only`: these applications; `quick`: one pair of each, from which nothing can be concluded."""
    bodies = {name: body for name, body in applications.bodies().items() if not only or name in only}
    if quick:
        bodies = {name: _in_a_hurry(body) for name, body in bodies.items()}
    return showing.run("examples", keep, lambda client, console: _show(client, bodies, console))


def _in_a_hurry(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "control": {**body.get("control", {}), "seeds": 1}}


def _show(client: httpx.Client, bodies: dict[str, dict[str, Any]], console: Console) -> bool:
    labels = {showing.submit(client, body, console): name for name, body in bodies.items()}
    good = showing.ended_well(client, list(labels), console, labels)
    if good:
        showing.results(client, good, console, labels)
    return len(good) == len(labels)
