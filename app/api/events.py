"""/v1/jobs/{id}/events: what happened, as JSON or as a stream that goes on until the job has ended."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app import db, events, jobs
from app.api import deps, shapes
from app.api.changes import changes_of
from app.api.deps import JobId
from app.api.shapes import EventPage, EventShape
from app.errors import NotFound
from app.states import is_terminal

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

HEARTBEAT_SECONDS = 15.0
_PAGE = 500
_RETRY_MILLISECONDS = 1000
_LARGEST = 2**63 - 1


@router.get(
    "/{job_id}/events",
    response_model=EventPage,
    responses={
        200: {
            "description": "Events numbered above `after`; a stream where Accept names text/event-stream.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The job has ended and there is no event beyond this one (streams only)."},
        **deps.problem_responses("not_found", "too_many_streams"),
    },
    summary="Read or follow a job's events",
)
async def list_events(
    request: Request,
    job_id: JobId,
    after: Annotated[int | None, Query(ge=0, le=_LARGEST, description="number of the last event known")] = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE, description="events in a JSON answer")] = 200,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=_LARGEST, description="as `after`; what a browser sends when it reconnects")
    ] = None,
) -> Response:
    """Numbers count from 1 without gaps, so that nothing is lost or repeated on resuming. A stream also has `progress`
    events without a number, at most one a second; they are not stored."""
    start = (after or 0) if last_event_id is None else last_event_id
    if not deps.accepts(request, "text/event-stream"):
        page = await run_in_threadpool(_page, job_id, start, limit)
        return Response(page.model_dump_json(), media_type="application/json", headers={"vary": "accept"})
    changes_of(request).refuse_when_full()
    if await run_in_threadpool(_over, job_id, start):
        return Response(status_code=204)
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no", "vary": "accept"}
    return StreamingResponse(_stream(request, job_id, start), media_type="text/event-stream", headers=headers)


def _page(job_id: str, after: int, limit: int) -> EventPage:
    with db.transaction() as session:
        job = jobs.get(session, job_id)
        entries = [shapes.of_event(event) for event in events.after(session, job_id, after, limit)]
    last = entries[-1].id if entries else after
    ended = is_terminal(job.state) and len(entries) < limit
    return EventPage(data=entries, next_after=None if ended else last)


def _over(job_id: str, after: int) -> bool:
    with db.transaction() as session:
        job = jobs.get(session, job_id)
        return is_terminal(job.state) and not events.after(session, job_id, after, 1)


async def _stream(request: Request, job_id: str, after: int) -> AsyncIterator[bytes]:
    shown: dict[str, Any] | None = None
    spoke, progressed = time.monotonic(), float("-inf")
    yield format_sse_event(retry=_RETRY_MILLISECONDS)
    with changes_of(request).waiter(job_id) as waiter:
        while not waiter.closing:
            try:
                entries, progress, ended = await waiter.read(_news, job_id, after)
            except NotFound:
                return  # deleted while it was followed
            for event in entries:
                yield format_sse_event(event=event.type, data_str=event.model_dump_json(), id=str(event.id))
                after, spoke = event.id, time.monotonic()
            if len(entries) == _PAGE:
                continue
            if ended:
                return
            if progress is not None and progress != shown and time.monotonic() - progressed >= 1.0:
                yield format_sse_event(event="progress", data_str=json.dumps(progress, allow_nan=False))
                shown, spoke = progress, time.monotonic()
                progressed = spoke
            if time.monotonic() - spoke >= HEARTBEAT_SECONDS:
                yield KEEPALIVE_COMMENT
                spoke = time.monotonic()
            await waiter.changed()


def _news(job_id: str, after: int) -> tuple[list[EventShape], dict[str, Any] | None, bool]:
    with db.transaction() as session:
        # The job first: when it has ended, its last event is committed, so the second query sees it.
        job = jobs.get(session, job_id)
        entries = [shapes.of_event(event) for event in events.after(session, job_id, after, _PAGE)]
    progress = None
    if job.progress is not None and not is_terminal(job.state):
        progress = {
            "state": job.state,
            "stage": job.stage,
            "attempt": job.attempt,
            "progress": job.progress,
            "latest": job.latest,
        }
    return entries, progress, is_terminal(job.state)
