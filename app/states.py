"""The states of a job and every legal move between them. Pure: `app/jobs.py` alone makes the moves."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"  # -> running, paused, cancelled
    RUNNING = "running"  # -> succeeded, failed, cancelled, queued (a new attempt, or a drain), paused
    PAUSED = "paused"  # -> queued, cancelled
    SUCCEEDED = "succeeded"  # the end
    FAILED = "failed"  # the end
    CANCELLED = "cancelled"  # the end


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.PAUSED}) | TERMINAL,
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def is_terminal(state: str) -> bool:
    return JobState(state) in TERMINAL
