"""POST /v1/models: a model that a user sends as a file, or names on the service's machine, with what has to be said about it."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from typing import IO

from fastapi import APIRouter, Request, Response

from app import model_intake
from app.api import deps, model_bodies, server_files, shapes, upload_bodies
from app.api.admission import aside
from app.api.bodies import expect_multipart, media_type_of, object_body
from app.api.model_bodies import Sent
from app.api.shapes import ModelShape
from app.api.threads import apart
from app.errors import refused
from app.pretrained.hugging_face.folder import wanted
from app.settings import settings
from app.spec.faults import Invalid
from app.spec.named_weights import WeightsOptions

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "",
    status_code=201,
    response_model=ModelShape,
    responses={
        200: {"description": "The same file with the same words: the model that it made before.", "model": ModelShape},
        **deps.problem_responses(
            *("malformed_body", "conflict", "unsupported_media_type", "invalid", "model_invalid"),
            *("inference_unavailable", "disk_full"),
        ),
    },
    openapi_extra=model_bodies.OPENAPI,
    summary="Bring a model of your own",
)
async def upload_model(request: Request) -> Response:
    """`curl -F file=@mine.keras -F classes=cat,dog -F scale=0..255`. The file is never loaded: its layers are read as data, each one
    of a list of stock layers, and built anew with its numbers; what cannot be is said layer by layer. `curl --json '{"uri":
    "file:///models/bert"}'` reads a file or a model's folder of the service's machine, in the folders that its operator has opened
    (BEQUEST_FILE_ROOTS). The model is then like those that jobs keep: a source, a teacher, a student's beginning, a predictor.
    `manifest.origin` says what was decided on the way.
    """
    if media_type_of(request.headers) == upload_bodies.JSON:
        return await _answer(request, model_bodies.of_json(await object_body(request)))
    expect_multipart(request)
    async with request.form(max_files=2, max_fields=64, max_part_size=model_bodies.FIELD_BYTES) as form:
        return await _answer(request, model_bodies.of_form(form))


async def _answer(request: Request, sent: Sent) -> Response:
    with aside(request):
        shape, existed = await apart("uploads", _store, sent)
    headers = {"location": f"/v1/models/{shape.id}"}
    return deps.tagged(shape, None, status=200 if existed else 201, headers=headers)


def _store(sent: Sent) -> tuple[ModelShape, bool]:
    """The model of the file, and whether it existed before."""
    folder = settings().store / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / f"upload-{uuid.uuid4().hex}"
    try:
        with raw.open("xb") as target:
            filename, name = _copied(sent, target)
        options = sent.options
        if isinstance(options, WeightsOptions):
            model, new = model_intake.add_weights(raw, filename=filename, name=name, options=options)
        else:
            model, new = model_intake.add(raw, filename=filename, name=name, options=options)
        return shapes.of_model(model, []), not new
    except Invalid as invalid:
        in_file = any(fault.pointer.startswith(("/file", "/weights", "/uri")) for fault in invalid.faults)
        faults = [replace(fault, pointer=sent.pointer(fault.pointer)) for fault in invalid.faults]
        raise refused(faults, code="model_invalid" if in_file else "invalid") from None
    finally:
        raw.unlink(missing_ok=True)


def _copied(sent: Sent, target: IO[bytes]) -> tuple[str | None, str | None]:
    """Writes what was sent or named; its own name, and what the model is to be called, which of a folder is all of its name."""
    if isinstance(sent.source, str):
        named, folder = server_files.copy(sent.source, target, wanted)
        return named, sent.name or (named if folder else None)
    shutil.copyfileobj(sent.source.file, target, 1 << 20)
    return sent.source.filename or None, sent.name
