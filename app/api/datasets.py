"""/v1/datasets: the built-in ones and uploads. An upload is parsed in a child process; same bytes, same data set."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json
from starlette.formparsers import MultiPartParser

from app import datasets, intake
from app.api import deps, server_files, upload_bodies
from app.api.admission import aside
from app.api.bodies import expect_multipart, media_type_of, object_body
from app.api.deps import Cursor, DatasetId, IfNoneMatch, InTransaction, Limit
from app.api.pages import page
from app.api.shapes import DatasetShape, DatasetSummary, Page, Preview
from app.api.threads import apart
from app.api.upload_bodies import Upload
from app.errors import refused
from app.settings import settings
from app.spec.faults import Invalid

MultiPartParser.spool_max_size = 64 * 1024  # the rest of an upload lies on the disk, where it is counted

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    response_model=DatasetShape,
    responses={
        200: {"description": "These bytes are known: the data set that they made before.", "model": DatasetShape},
        202: {
            "description": "Reading it takes longer: GET the data set until its `state` is `ready` or `failed`.",
            "model": DatasetShape,
        },
        **deps.problem_responses(
            "malformed_body",
            "conflict",
            "unsupported_media_type",
            "invalid",
            "dataset_invalid",
            "disk_full",
        ),
    },
    openapi_extra=upload_bodies.OPENAPI,
    summary="Upload a data set",
)
async def upload_dataset(request: Request) -> Response:
    """`curl -F file=@flowers.csv -F targets=species`, `curl -F file=@photos.zip -F size=64x64`. The file's name is a
    label and never a path. `curl --json '{"uri": "file:///data/photos"}'` reads a file or a folder of the service's machine, in the
    folders that its operator has opened (BEQUEST_FILE_ROOTS); `{"dataset": "ds_…", "size": "96x96"}` reads an archive
    that was sent before once more. The answers are the same.
    """
    if media_type_of(request.headers) == upload_bodies.JSON:
        return await _answer(request, upload_bodies.of_json(await object_body(request)))
    expect_multipart(request)
    async with request.form(max_files=2, max_fields=64, max_part_size=upload_bodies.FIELD_BYTES) as form:
        return await _answer(request, upload_bodies.of_form(form))


async def _answer(request: Request, upload: Upload) -> Response:
    with aside(request):
        shape, existed = await apart("uploads", _store, upload)
    headers = {"location": f"/v1/datasets/{shape.id}"}
    status = 202 if shape.state == "preparing" else 200 if existed else 201
    return deps.tagged(shape, None, status=status, headers=headers)


def _store(upload: Upload) -> tuple[DatasetShape, bool]:
    """The data set of the upload's bytes, and whether it existed before."""
    try:
        with _spooled(upload) as (raw, named, known):
            dataset, new = intake.add(
                raw, filename=named, name=upload.name, format=upload.format or known, options=upload.options
            )
            return DatasetShape.of(dataset), not new
    except Invalid as invalid:
        in_file = any(fault.pointer.startswith(("/file", "/uri")) for fault in invalid.faults)
        faults = [replace(fault, pointer=upload.pointer(fault.pointer)) for fault in invalid.faults]
        raise refused(faults, code="dataset_invalid" if in_file else "invalid") from None


@contextmanager
def _spooled(upload: Upload) -> Iterator[tuple[Path, str | None, str | None]]:
    """The bytes as a file of a name that we chose, beside the store, gone afterwards; their own name; their format where it is known."""
    folder = settings().store / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    raw, known = folder / f"upload-{uuid.uuid4().hex}", None
    try:
        with raw.open("xb") as target:
            if upload.is_known:
                named, known = intake.copy(str(upload.source), target)
            elif isinstance(upload.source, str):
                named, known = server_files.copy(upload.source, target)
            else:
                named = upload.source.filename or ""
                shutil.copyfileobj(upload.source.file, target, 1 << 20)
        yield raw, named or None, known
    finally:
        raw.unlink(missing_ok=True)


@router.get("", responses=deps.problem_responses(), summary="List data sets")
def list_datasets(
    request: Request,
    response: Response,
    session: InTransaction,
    limit: Limit = 50,
    cursor: Cursor = None,
    sha256: Annotated[
        str | None, Query(pattern=r"^[0-9a-f]{64}$", description="of the bytes that were sent: is it here already?")
    ] = None,
) -> Page[DatasetSummary]:
    """Uploads, the newest first, then the built-in ones. An entry names the first 20 columns, features and classes and counts them all; the
    data set itself has them. A page may hold fewer than `limit`: it ends at 4 MiB."""
    entries = datasets.page(session, limit=limit + 1, before=cursor, sha256=sha256)
    return page(request, response, entries, limit, lambda entry: entry.id, DatasetSummary.of)


@router.get(
    "/{dataset_id}",
    response_model=DatasetShape,
    responses={304: {"description": "It has not changed."}, **deps.problem_responses("not_found")},
    summary="Get a data set",
)
def get_dataset(session: InTransaction, dataset_id: DatasetId, if_none_match: IfNoneMatch = None) -> Response:
    """What it looks like: rows, input, columns with their classes and counts."""
    return deps.tagged(DatasetShape.of(datasets.get(session, dataset_id)), if_none_match)


@router.get(
    "/{dataset_id}/preview",
    response_model=Preview,
    responses=deps.problem_responses("not_found", "dataset_not_ready"),
    summary="A data set's first rows",
)
@deps.looks_twice
def preview_dataset(
    session: InTransaction, dataset_id: DatasetId, rows: Annotated[int, Query(ge=1, le=100)] = 10
) -> Response:
    """`input` is as `predict` takes it; columns are in words. Of large pictures fewer rows come, a million numbers in all."""
    # Row by row: a million numbers as Python's lists take ten times the room of their text.
    shown = b",".join(to_json(row, inf_nan_mode="null") for row in datasets.preview(session, dataset_id, rows))
    return Response(b'{"rows":[' + shown + b"]}", media_type="application/json")


@router.delete(
    "/{dataset_id}",
    status_code=204,
    responses=deps.problem_responses("not_found", "conflict", "dataset_in_use"),
    summary="Delete an upload",
)
def delete_dataset(session: InTransaction, dataset_id: DatasetId) -> None:
    """Bytes and all. 409 names the jobs and models that rest on it."""
    datasets.delete(session, dataset_id)
