"""The API: `uvicorn app.main:app`. Everything of it is put together here."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from app import db, intake, jobs, logs, pipelines
from app.api import (
    architectures,
    catalog,
    datasets,
    deps,
    docs,
    events,
    files,
    health,
    model_uploads,
    models,
    problems,
    results,
    workers,
)
from app.api import jobs as jobs_api
from app.api import pipelines as pipelines_api
from app.api.admission import Admission
from app.api.changes import Changes, at_signal
from app.api.connections import quiet
from app.api.middleware import RequestMiddleware
from app.api.receiving import BodyBudgets
from app.programs import version
from app.settings import settings

log = logs.get(__name__)


def create_app() -> FastAPI:
    """A new application; its settings are the process's."""
    logs.configure()
    app = FastAPI(
        title="Bequest",
        version=version(),
        lifespan=_lifespan,
        openapi_url="/openapi.json" if settings().docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what generators call a function: `submit_job`
        dependencies=[Depends(deps.known_parameters)],
    )
    app.state.admission = Admission()
    app.state.receiving = BodyBudgets()
    app.add_middleware(RequestMiddleware, admission=app.state.admission, receiving=app.state.receiving)
    problems.install(app)
    for resource in (
        jobs_api,
        pipelines_api,
        events,
        results,
        files,
        datasets,
        model_uploads,
        models,
        architectures,
        catalog,
        workers,
        health,
    ):
        app.include_router(resource.router)
    docs.install(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Brings the schema up to date, then listens and sweeps for as long as requests are served."""
    quiet(asyncio.get_running_loop())
    await run_in_threadpool(db.migrate)
    tempfile.tempdir = str(_folder_for_temporary_files())
    changes = app.state.changes = Changes()
    listening = asyncio.create_task(changes.listen())
    stop = threading.Event()
    threads = [
        threading.Thread(target=_often, args=(stop, act), name=act.__name__.strip("_"), daemon=True)
        for act in (_sweep, _advance)
    ]
    for thread in threads:
        thread.start()
    log.info("ready", version=version())
    with at_signal(changes.close):
        yield
    tempfile.tempdir = None
    changes.close()
    stop.set()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    for thread in threads:
        await run_in_threadpool(thread.join, 5.0)
    log.info("stopped")


def _folder_for_temporary_files() -> Path:
    """Beside the store: an upload on its way is on the disk whose free bytes are watched, and not in a /tmp that may be memory."""
    folder = settings().store / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _often(stop: threading.Event, act: Callable[[], None]) -> None:
    """Acts every few seconds. Outlives every error of the database."""
    while not stop.wait(settings().sweep_seconds):
        try:
            act()
        except Exception as error:
            log.warning(
                "failed; it goes on", what=threading.current_thread().name, error=type(error).__name__, exc_info=error
            )


def _sweep() -> None:
    """Takes jobs back from workers that are gone, sends missing wake-ups, and begins anew what dead processes were reading."""
    swept = jobs.sweep()
    begun = intake.resume()
    if swept.requeued or swept.ended or swept.woken:
        log.info("swept", requeued=swept.requeued, ended=swept.ended, woken=swept.woken)
    if begun:
        log.info("datasets_begun_anew", datasets=begun)


def _advance() -> None:
    """Apart from the sweep, which must not wait: a network in a step that was never looked at takes seconds."""
    if begun := pipelines.advance():
        log.info("steps_begun", steps=begun)


app = create_app()
