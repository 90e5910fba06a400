"""/v1/jobs: submit, validate, list, get, cancel, pause, resume, delete."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app import db, jobs, submissions
from app.api import deps, shapes
from app.api.admission import aside
from app.api.bodies import Body, as_object, json_body, optional_object_body, unknown_fields
from app.api.changes import changes_of
from app.api.deps import Cursor, FilterText, IfNoneMatch, InTransaction, JobId, Limit, Wait
from app.api.pages import page
from app.api.shapes import JobShape, Page, Validated
from app.api.submitting import REFUSALS, REPLAYED, idempotency_key, once_traced, prepare
from app.spec.faults import Fault, Invalid
from app.states import JobState, is_terminal

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_SPEC_BODY = deps.body_in_openapi(
    {"$ref": "#/components/schemas/JobSpec"},
    example={"kind": "transfer", "dataset": "digits", "source": {"train": {"dataset": "strokes"}}},
)


@router.post(
    "",
    status_code=202,
    response_model=JobShape,
    responses={
        202: {"headers": REPLAYED},
        **deps.problem_responses(
            *REFUSALS, "not_available", "conflict", "idempotency_key_reused", "queue_full", "inference_unavailable"
        ),
    },
    openapi_extra=_SPEC_BODY,
    summary="Submit a job",
)
async def submit_job(
    request: Request,
    body: Annotated[Body, Depends(json_body)],
    wait: Wait,
    key: Annotated[str | None, Depends(idempotency_key)],
) -> Response:
    """The whole job comes back at once, queued; with `Prefer: wait=N` when it has ended, or after N seconds.

    With an `Idempotency-Key` a submission whose answer was lost can be repeated: the key's first job is the answer, as it stands.
    """
    job, new = await once_traced(_submit, body, key)
    headers = {"location": f"/v1/jobs/{job.id}"}
    if not new:
        headers["idempotent-replayed"] = "true"
    if wait and not changes_of(request).full:
        job = await _until_ended(request, job, wait)
        headers["preference-applied"] = f"wait={wait:.0f}"
    return deps.tagged(job, None, status=202, headers=headers)


@router.post(
    "/validate",
    responses=deps.problem_responses(*REFUSALS, "not_available", "conflict", "inference_unavailable"),
    openapi_extra=_SPEC_BODY,
    summary="Check a job without starting it",
)
async def validate_job(body: Annotated[Body, Depends(json_body)]) -> Validated:
    """The resolved spec, or every fault at once. Nothing is stored."""
    return await once_traced(_validate, body)


@router.get("", responses=deps.problem_responses(), summary="List jobs")
def list_jobs(
    request: Request,
    response: Response,
    session: InTransaction,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: FilterText = None,
    state: Annotated[JobState | None, Query()] = None,
    name: FilterText = None,
    tag: FilterText = None,
) -> Page[JobShape]:
    """Newest first. Filters are combined. A page may hold fewer than `limit`: it ends at 4 MiB."""
    rows = jobs.page(session, limit=limit + 1, before=cursor, kind=kind, state=state, name=name, tag=tag)
    return page(request, response, rows, limit, lambda job: job.id, lambda job: shapes.of_job(session, job))


@router.get(
    "/{job_id:job}",
    response_model=JobShape,
    responses={304: {"description": "It has not changed."}, **deps.problem_responses("not_found")},
    summary="Get a job",
)
async def get_job(request: Request, job_id: JobId, wait: Wait, if_none_match: IfNoneMatch = None) -> Response:
    """With `Prefer: wait=N` held until the state changes, or the job differs from `If-None-Match`; N seconds at most."""
    job = await run_in_threadpool(_read, job_id)
    answer = deps.tagged(job, if_none_match)
    if wait and not is_terminal(job.state) and not changes_of(request).full:
        start, deadline = job.state, time.monotonic() + wait
        with aside(request), changes_of(request).waiter(job_id) as waiter:
            while not waiter.closing and (left := deadline - time.monotonic()) > 0:
                job = await waiter.read(_read, job_id)
                answer = deps.tagged(job, if_none_match)
                moved = answer.status_code != 304 if if_none_match else job.state != start
                if moved or await request.is_disconnected():
                    break
                await waiter.changed(left)
        answer.headers["preference-applied"] = f"wait={wait:.0f}"
    return answer


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=JobShape,
    responses={
        200: {"description": "It was cancelled, or asked to stop, before.", "model": JobShape},
        **deps.problem_responses("not_found", "conflict", *REFUSALS),
    },
    openapi_extra=deps.body_in_openapi(
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "discard": {
                    "type": "boolean",
                    "default": False,
                    "description": "give up what finished stages have kept, too, unless another job inherits from it",
                }
            },
        },
        required=False,
    ),
    summary="Cancel a job",
)
def cancel_job(
    job_id: JobId, body: Annotated[dict[str, Any], Depends(optional_object_body)], session: InTransaction
) -> Response:
    """At once when it does not run; else the worker stops it. What finished stages have kept stays, unless discarded;
    what another job inherits from stays even then."""
    job, changed = jobs.cancel(session, job_id, _discard(body))
    return deps.tagged(shapes.of_job(session, job), None, status=202 if changed else 200)


@router.post(
    "/{job_id}/pause",
    status_code=202,
    response_model=JobShape,
    responses={
        200: {"description": "It was paused, or asked to pause, before.", "model": JobShape},
        **deps.problem_responses("not_found", "conflict"),
    },
    summary="Pause a job",
)
def pause_job(session: InTransaction, job_id: JobId) -> Response:
    """At once while it is queued; else the worker saves a checkpoint and gives the device free. No attempt is charged."""
    job, changed = jobs.pause(session, job_id)
    return deps.tagged(shapes.of_job(session, job), None, status=202 if changed else 200)


@router.post(
    "/{job_id}/resume",
    status_code=202,
    response_model=JobShape,
    responses={
        200: {"description": "It is queued or runs.", "model": JobShape},
        **deps.problem_responses("not_found", "conflict"),
    },
    summary="Resume a paused job",
)
def resume_job(session: InTransaction, job_id: JobId) -> Response:
    """Back to the queue; it goes on from its newest checkpoint. Also takes back a pause that a worker has yet to grant."""
    job, changed = jobs.resume(session, job_id)
    return deps.tagged(shapes.of_job(session, job), None, status=202 if changed else 200)


@router.delete(
    "/{job_id:job}",
    status_code=204,
    responses=deps.problem_responses("not_found", "conflict"),
    summary="Delete a finished job",
)
def delete_job(session: InTransaction, job_id: JobId) -> None:
    """Its models, metrics, events and files too. 409 names what still depends on it."""
    jobs.delete(session, job_id)


def _submit(body: Body, key: str | None) -> tuple[JobShape, bool]:
    prepare(body, jobs.validate)
    with db.transaction() as session:
        job, new = submissions.submit(session, as_object(body.value), key)
        return shapes.of_job(session, job), new


def _validate(body: Body) -> Validated:
    prepare(body, jobs.validate)
    with db.transaction() as session:
        return Validated(valid=True, resolved_spec=jobs.validate(session, as_object(body.value)))


def _read(job_id: str) -> JobShape:
    with db.transaction() as session:
        return shapes.of_job(session, jobs.get(session, job_id))


async def _until_ended(request: Request, job: JobShape, seconds: float) -> JobShape:
    deadline = time.monotonic() + seconds
    with aside(request), changes_of(request).waiter(job.id) as waiter:
        while not waiter.closing and (left := deadline - time.monotonic()) > 0:
            job = await waiter.read(_read, job.id)
            if is_terminal(job.state) or await request.is_disconnected():
                break
            await waiter.changed(left)
    return job


def _discard(body: dict[str, Any]) -> bool:
    faults = unknown_fields(body, ["discard"])
    discard = body.get("discard", False)
    if not isinstance(discard, bool):
        faults.append(Fault("/discard", "expected true or false", None, "bool_type"))
    if faults:
        raise Invalid(faults)
    return bool(discard)
