"""/healthz and /readyz: whether this process lives, and whether the whole service can do its work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import text

from app import db, queue, workers
from app.api import deps
from app.api.threads import apart
from app.data.uploads import protections
from app.inference import alive
from app.programs import version
from app.settings import settings

router = APIRouter(tags=["service"])

State = Literal["ok", "down"]


class Health(BaseModel):
    status: Literal["ok"]
    version: str


class Readiness(BaseModel):
    """`ready` needs database, broker and migrations. Without workers jobs wait; without inference `predict` is 503."""

    ready: bool
    version: str
    database: State
    broker: State
    migrations: Annotated[
        Literal["ok", "behind", "unknown"], Field(description="behind: start the service, or `bequest serve`")
    ]
    inference: State
    workers_online: int | None
    free_bytes: int | None
    upload_walls: list[str] = Field(
        description="what confines the process that reads an upload: memory, cpu, files, core, processes, user, network, privileges"
    )
    embedded: Literal["trust"] | None = Field(
        description="trust: the embedded database, where every process that reaches its socket is a superuser"
    )


@router.get("/healthz", responses=deps.problem_responses(), summary="Does this process live?")
async def healthz() -> Health:
    return Health(status="ok", version=version())


@router.get(
    "/readyz",
    responses={
        **deps.problem_responses(),
        503: {"description": "Something that is needed does not answer.", "model": Readiness},
    },
    summary="Can the service do its work?",
)
async def readyz(response: Response) -> Readiness:
    readiness = await apart("readiness", _readiness)
    response.status_code = 200 if readiness.ready else 503
    response.headers["cache-control"] = "no-store"
    return readiness


def _readiness() -> Readiness:
    database = db.ping()
    broker = queue.ping()
    migrations = _migrations() if database else "unknown"
    return Readiness(
        ready=database and broker and migrations == "ok",
        version=version(),
        database="ok" if database else "down",
        broker="ok" if broker else "down",
        migrations=migrations,
        inference="ok" if alive() else "down",
        workers_online=_workers() if migrations == "ok" else None,
        free_bytes=_free_bytes(),
        upload_walls=protections(),
        embedded="trust" if database and _embedded() else None,
    )


def _migrations() -> Literal["ok", "behind", "unknown"]:
    try:
        return "behind" if db.behind() else "ok"
    except Exception:  # the database went away meanwhile
        return "unknown"


def _workers() -> int | None:
    try:
        with db.transaction() as session:
            return len(workers.online(session))
    except Exception:  # as above
        return None


def _free_bytes() -> int | None:
    """Free bytes on the disk of the store, or where its folder is going to be."""
    place = settings().store.expanduser().absolute()
    there = next((folder for folder in (place, *place.parents) if folder.exists()), None)
    return shutil.disk_usage(there).free if there else None


def _embedded() -> bool:
    """Whether the database keeps its files in our own data folder; only the embedded one tells us where they are."""
    try:
        with db.transaction() as session:
            place = session.execute(text("SELECT current_setting('data_directory', true)")).scalar_one_or_none()
    except Exception:  # another server's superuser alone may ask; then it is not ours
        return False
    return place is not None and Path(place).is_relative_to(settings().data.expanduser().resolve())
