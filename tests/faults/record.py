"""What the service has promised to a client, and what was done to it meanwhile: `checker.py` holds the service to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cancel:
    """A cancel that the API has accepted: when (the epoch's seconds, before and after), and the state that it answered."""

    job_id: str
    asked: float
    answered: float
    state: str


@dataclass
class Record:
    """What the service has promised to this client."""

    submitted: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancels: list[Cancel] = field(default_factory=list)
    answers: Counter[int | str] = field(default_factory=Counter)  # statuses, and the errors of connections that broke
    faulty: list[str] = field(default_factory=list)  # answers of the 500s that no fault excuses
    submit_seconds: list[float] = field(default_factory=list)
    cancels_asked: set[str] = field(default_factory=set)  # whatever was answered, if anything
    faults: Counter[str] = field(default_factory=Counter)
    orphans: set[int] = field(default_factory=set)  # what was there a second after the worker had been killed
    # Of workers that were killed, frozen or cut off: the pid, and when.
    deaths: list[tuple[int, float]] = field(default_factory=list)
