"""/v1/pipelines: submit, list, get, cancel, resume, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app import db, pipelines
from app.api import deps, shapes
from app.api.bodies import Body, as_object, json_body
from app.api.deps import Cursor, IfNoneMatch, InTransaction, Limit, PipelineId
from app.api.pages import page
from app.api.shapes import Page, PipelineShape
from app.api.submitting import REFUSALS, REPLAYED, idempotency_key, once_traced, prepare
from app.spec.pipeline import PipelineSpec

router = APIRouter(prefix="/v1/pipelines", tags=["pipelines"])

EXAMPLE = {
    "name": "small digits",
    "steps": {
        "big": {"kind": "transfer", "dataset": "digits", "source": {"train": {"dataset": "strokes"}}},
        "small": {"kind": "distillation", "dataset": "digits", "teacher": "step:big", "student": "cnn-small"},
    },
}


@router.post(
    "",
    status_code=202,
    response_model=PipelineShape,
    responses={
        202: {"headers": REPLAYED},
        **deps.problem_responses(
            *REFUSALS, "not_available", "conflict", "idempotency_key_reused", "queue_full", "inference_unavailable"
        ),
    },
    openapi_extra=deps.body_in_openapi(PipelineSpec.model_json_schema(), example=EXAMPLE),
    summary="Submit several jobs that inherit from each other",
)
async def submit_pipeline(
    body: Annotated[Body, Depends(json_body)], key: Annotated[str | None, Depends(idempotency_key)]
) -> Response:
    """A step is the body of a job, in which `step:NAME` stands for the model of another step. Steps that need no other are queued at
    once, each other one when those that it needs have succeeded; after one that ends otherwise none begins any more.

    Every step is checked before anything is stored, as far as can be while there is no model to inherit from.
    """
    pipeline, new = await once_traced(_submit, body, key)
    headers = {"location": f"/v1/pipelines/{pipeline.id}"} | ({} if new else {"idempotent-replayed": "true"})
    return deps.tagged(pipeline, None, status=202, headers=headers)


@router.get("", responses=deps.problem_responses(), summary="List pipelines")
def list_pipelines(
    request: Request, response: Response, session: InTransaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[PipelineShape]:
    """Newest first. A page may hold fewer than `limit`: it ends at 4 MiB."""
    rows = pipelines.page(session, limit=limit + 1, before=cursor)
    return page(
        request,
        response,
        rows,
        limit,
        lambda pipeline: pipeline.id,
        lambda pipeline: shapes.of_pipeline(pipelines.view(session, pipeline)),
    )


@router.get(
    "/{pipeline_id}",
    response_model=PipelineShape,
    responses={304: {"description": "It has not changed."}, **deps.problem_responses("not_found")},
    summary="Get a pipeline",
)
def get_pipeline(session: InTransaction, pipeline_id: PipelineId, if_none_match: IfNoneMatch = None) -> Response:
    """With the state of each step, and its job, whose own path tells how far it is."""
    found = pipelines.view(session, pipelines.get(session, pipeline_id))
    return deps.tagged(shapes.of_pipeline(found), if_none_match)


@router.post(
    "/{pipeline_id}/cancel",
    status_code=202,
    response_model=PipelineShape,
    responses={
        200: {"description": "It was cancelled before.", "model": PipelineShape},
        **deps.problem_responses("not_found", "conflict"),
    },
    summary="Cancel a pipeline",
)
def cancel_pipeline(session: InTransaction, pipeline_id: PipelineId) -> Response:
    """Its jobs that have not ended are cancelled, and no further step begins. What steps have made stays."""
    return _changed(*pipelines.cancel(session, pipeline_id))


@router.post(
    "/{pipeline_id}/resume",
    status_code=202,
    response_model=PipelineShape,
    responses={
        200: {"description": "It runs.", "model": PipelineShape},
        **deps.problem_responses("not_found", "conflict"),
    },
    summary="Resume a pipeline that was stopped",
)
def resume_pipeline(session: InTransaction, pipeline_id: PipelineId) -> Response:
    """What has succeeded stays; each other step becomes a new job when its turn comes."""
    return _changed(*pipelines.resume(session, pipeline_id))


@router.delete(
    "/{pipeline_id}",
    status_code=204,
    responses=deps.problem_responses("not_found", "conflict"),
    summary="Delete a pipeline that has ended",
)
def delete_pipeline(session: InTransaction, pipeline_id: PipelineId) -> None:
    """The jobs that it made stay, with their models."""
    pipelines.delete(session, pipeline_id)


def _submit(body: Body, key: str | None) -> tuple[PipelineShape, bool]:
    prepare(body, pipelines.check)
    with db.transaction() as session:
        view, new = pipelines.submit(session, as_object(body.value), key)
        return shapes.of_pipeline(view), new


def _changed(view: pipelines.View, changed: bool) -> Response:
    return deps.tagged(shapes.of_pipeline(view), None, status=202 if changed else 200)
