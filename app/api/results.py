"""The record of a job's run: /v1/jobs/{id}/metrics, logs, report, attempts."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app import artifacts, db, jobs, logs, metrics
from app.api import deps, shapes
from app.api.changes import changes_of
from app.api.deps import IfNoneMatch, InTransaction, JobId
from app.api.shapes import Attempts, MetricsShape
from app.errors import NotFound
from app.settings import settings
from app.states import is_terminal

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

LOG_NAME = "trainer.log"
_CHUNK = 64 * 1024
_TAIL_LIMIT = 10_000


@router.get(
    "/{job_id}/metrics",
    response_model=MetricsShape,
    responses={
        200: {
            "description": "One axis of steps, columns by name.",
            "content": {"text/csv": {"schema": {"type": "string"}}},
        },
        **deps.problem_responses("not_found"),
    },
    summary="Metrics over steps",
)
def get_metrics(
    request: Request,
    session: InTransaction,
    job_id: JobId,
    names: Annotated[
        str | None, Query(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$", description="a,b,c; all when left out")
    ] = None,
    max_points: Annotated[
        int | None,
        Query(
            ge=1,
            le=100_000,
            description="thin each series by itself to so many values at most: its first and last, its lowest and highest (from 4 on), "
            "and others evenly between; `step` has every step that a series has kept, so it may be longer",
        ),
    ] = None,
) -> Response:
    """`source/loss` belongs to the stage source, plain `loss` to the target. CSV where Accept names text/csv."""
    jobs.get(session, job_id)
    wanted = None if names is None else [name.strip() for name in names.split(",") if name.strip()]
    steps, series = metrics.series(session, job_id, wanted, max_points)
    if deps.accepts(request, "text/csv"):
        return Response(_csv(steps, series), media_type="text/csv", headers={"vary": "accept"})
    return Response(
        MetricsShape(step=steps, series=series).model_dump_json(),
        media_type="application/json",
        headers={"vary": "accept"},
    )


@router.get(
    "/{job_id}/logs",
    response_class=Response,
    responses={
        200: {"description": "The trainer's log.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **deps.problem_responses("not_found", "too_many_streams"),
    },
    summary="The trainer's log",
)
async def get_logs(
    request: Request,
    job_id: JobId,
    tail: Annotated[int, Query(ge=0, le=_TAIL_LIMIT, description="so many of the last lines")] = 200,
    follow: Annotated[bool, Query(description="go on until the job has ended")] = False,
) -> Response:
    """Text; empty until the trainer has written something. Passwords and keys are cut out."""
    if follow:
        changes_of(request).refuse_when_full()
    text, offset = await run_in_threadpool(_tail, job_id, tail)
    if not follow:
        return Response(text, media_type="text/plain", headers={"cache-control": "no-store"})
    return StreamingResponse(
        _follow(request, job_id, text, offset), media_type="text/plain", headers={"cache-control": "no-store"}
    )


@router.get(
    "/{job_id}/report",
    responses={
        200: {
            "description": "Held-out metrics, the control and the verdict. One that an earlier release wrote is as it was then.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Report"}}},
        },
        304: {"description": "It has not changed."},
        **deps.problem_responses("not_found", "report_not_ready"),
    },
    response_class=Response,
    summary="The job's report",
)
@deps.looks_twice
def get_report(session: InTransaction, job_id: JobId, if_none_match: IfNoneMatch = None) -> Response:
    """What was measured on the held-out rows, beside the control's, and whether the method helped."""
    job = jobs.get(session, job_id)
    try:
        report = artifacts.get(session, job_id, "report.json")
    except NotFound:
        hint = "its error and reason say why it has none" if is_terminal(job.state) else "wait until it has succeeded"
        raise NotFound(f"This job is {job.state} and has no report: {hint}.", code="report_not_ready") from None
    headers = {"etag": f'"{report.sha256}"', "cache-control": "private, no-cache"}
    if deps.matches(headers["etag"], if_none_match):
        return Response(status_code=304, headers=headers)
    with artifacts.open_plain(artifacts.blob(report.sha256)) as file:
        return Response(file.read(), 200, headers, "application/json")


@router.get("/{job_id}/attempts", responses=deps.problem_responses("not_found"), summary="A job's executions")
def list_attempts(session: InTransaction, job_id: JobId) -> Attempts:
    """One for each time that a worker took the job, and why it ended."""
    jobs.get(session, job_id)
    return Attempts(data=[shapes.of_attempt(attempt) for attempt in jobs.attempts(session, job_id)])


def _csv(steps: list[int], series: dict[str, list[float | None]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    # A name that began with one of these would be a formula to whoever opens the table in a spreadsheet.
    table.writerow(
        ["step", *(f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name for name in series)]
    )
    table.writerows(zip(steps, *series.values(), strict=True))
    return text.getvalue()


def _log_file(job_id: str) -> tuple[Path, bool]:
    """Where the log of all attempts lies, and whether the job has ended. At the end the worker moves it into the store."""
    with db.transaction() as session:
        job = jobs.get(session, job_id)
        ended = is_terminal(job.state)
        kept = next((artifact for artifact in artifacts.of_job(session, job_id) if artifact.name == LOG_NAME), None)
    growing = settings().jobs_dir / job_id / LOG_NAME
    if kept is not None and (ended or not growing.exists()):
        return artifacts.blob(kept.sha256), ended
    return growing, ended


def _tail(job_id: str, lines: int) -> tuple[str, int]:
    """The last lines, and the offset behind them."""
    path, _ = _log_file(job_id)
    try:
        with artifacts.open_plain(path) as log:
            kept = deque(log, maxlen=lines)
            return _text(b"".join(kept)), log.tell()
    except OSError:  # nothing was written yet
        return "", 0


async def _follow(request: Request, job_id: str, text: str, offset: int) -> AsyncIterator[str]:
    if text:
        yield text
    rest = b""
    with changes_of(request).waiter(job_id) as waiter:
        while not waiter.closing:
            try:
                # Whether it has ended is asked before the file is read, so that the last lines are in it.
                path, ended = await waiter.read(_log_file, job_id)
            except NotFound:
                return
            new = await run_in_threadpool(_more, path, offset)
            offset += len(new)
            # Whole lines only: a secret cut in two by a chunk would not be recognised.
            whole, newline, rest = (rest + new).rpartition(b"\n")
            if newline:
                yield _text(whole + newline)
            if len(new) >= _CHUNK:
                continue
            if ended:
                yield _text(rest)
                return
            await waiter.changed()


def _text(raw: bytes) -> str:
    return logs.redact(raw.decode("utf-8", "replace"))


def _more(path: Path, offset: int) -> bytes:
    """The log from `offset` on. The stored log begins with all that the growing one held."""
    try:
        with artifacts.open_plain(path) as log:
            log.seek(offset)
            return log.read(_CHUNK)
    except OSError:
        return b""
