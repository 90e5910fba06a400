"""A file of a job, kept as a worker keeps it."""

from __future__ import annotations

from pathlib import Path

from app import artifacts, jobs
from app.db import transaction
from app.jobs import Claim


def keep(claim: Claim, folder: Path, name: str, content: bytes) -> str:
    """Stores an artifact of the job; returns its sha256."""
    path = folder / name
    path.write_bytes(content)
    stored = artifacts.keep_file(path)
    with transaction() as session:
        jobs.fence(session, claim)
        artifacts.add(session, claim.job_id, claim.attempt, name, stored)
    return stored.sha256
