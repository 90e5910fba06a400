"""POST /v1/models: a model that a user sends as a file, with what has to be said about it."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from dataclasses import dataclass
from typing import Any, get_args

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, UploadFile

from app import model_intake
from app.api import deps, shapes
from app.api.admission import aside
from app.api.bodies import expect_multipart, form_faults, form_texts
from app.api.shapes import ModelShape
from app.api.threads import apart
from app.data.names import LONGEST
from app.errors import refused
from app.settings import settings
from app.spec.faults import Fault, Invalid, validate
from app.spec.imports import SCALES, ImportOptions
from app.spec.intake import HIGHEST_RATE, LARGEST_SIDE, LOWEST_RATE, SIZE, Fit, size_of

router = APIRouter(prefix="/v1/models", tags=["models"])

FIELD_BYTES = 256 * 1024
_TEXTS = ("name", "classes", "scale", "size", "length", "fit", "rate", "columns", "dataset", "target", "output")
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "a .keras file of Keras 3, or a zip of graph.json and arrays.npz",
        },
        "name": {
            "type": "string",
            "maxLength": LONGEST,
            "pattern": r"^[^/\\\x00-\x1f\x7f]*$",
            "description": "the model's name; the file's, without its ending, when left out",
        },
        "classes": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": "the classes in the order of the outputs: a,b or a name a line; of several outputs a JSON object "
            '{"output": ["a", "b"]}; none: it is kept as a trunk without heads',
        },
        "scale": {
            "type": "string",
            "enum": list(SCALES),
            "description": "of pictures: which pixels the network expects",
        },
        "size": {
            "type": "string",
            "pattern": f"^({SIZE.pattern})?$",
            "description": "of pictures, HEIGHTxWIDTH, where the file leaves it open",
        },
        "length": {
            "type": "string",
            "pattern": "^([1-9][0-9]{0,4})?$",
            "description": "of other rows, the one side that the file leaves open",
        },
        "fit": {
            "type": "string",
            "enum": list(get_args(Fit)),
            "description": "how a picture comes to its size; stretch",
        },
        "rate": {
            "type": "string",
            "pattern": "^([0-9]{4,5})?$",
            "description": f"of a network on sounds, samples a second, {LOWEST_RATE} to {HIGHEST_RATE}",
        },
        "columns": {"type": "string", "maxLength": FIELD_BYTES, "description": "of a table, the columns in order: a,b"},
        "dataset": {
            "type": "string",
            "maxLength": 128,
            "pattern": r"^[^\x00]*$",
            "description": "one whose rows the network takes; what is not said of scale and classes is tried on its labelled rows",
        },
        "target": {
            "type": "string",
            "maxLength": 64,
            "pattern": r"^[^\x00]*$",
            "description": "the name of what it predicts",
        },
        "output": {
            "type": "string",
            "maxLength": 256,
            "pattern": r"^[^\x00]*$",
            "description": "the one of several outputs that is kept",
        },
    },
}


@dataclass(frozen=True)
class Sent:
    file: UploadFile
    name: str | None
    options: ImportOptions


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
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": _FORM,
                    "example": {"file": "", "classes": "cat,dog", "scale": "0..255"},
                }
            },
        }
    },
    summary="Bring a model of your own",
)
async def upload_model(request: Request) -> Response:
    """`curl -F file=@mine.keras -F classes=cat,dog -F scale=0..255`. The file is never loaded: its layers are read as data, each one
    of a list of stock layers, and built anew with its numbers; what cannot be is said layer by layer. The model is then like
    those that jobs keep: a source, a teacher, a student's beginning, a predictor. `manifest.origin` says what was decided on the way.
    """
    expect_multipart(request)
    async with request.form(max_files=2, max_fields=64, max_part_size=FIELD_BYTES) as form:
        sent = of_form(form)
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
            shutil.copyfileobj(sent.file.file, target, 1 << 20)
        model, new = model_intake.add(raw, filename=sent.file.filename or None, name=sent.name, options=sent.options)
        return shapes.of_model(model, []), not new
    except Invalid as invalid:
        in_file = any(fault.pointer.startswith("/file") for fault in invalid.faults)
        raise refused(invalid.faults, code="model_invalid" if in_file else "invalid") from None
    finally:
        raw.unlink(missing_ok=True)


def of_form(form: FormData) -> Sent:
    """The fields of a form. Raises Invalid with all that is wrong with them."""
    faults = form_faults(form, _TEXTS)
    texts = {name: text for name in _TEXTS for text in form_texts(form, name) if text}
    options = _options(texts, faults)
    if faults or options is None:
        raise Invalid(faults)
    file = form["file"]
    assert isinstance(file, UploadFile)
    return Sent(file, texts.get("name"), options)


def _options(texts: dict[str, str], faults: list[Fault]) -> ImportOptions | None:
    fields: dict[str, Any] = {
        name: texts[name] for name in ("scale", "fit", "dataset", "target", "output") if name in texts
    }
    if "columns" in texts:
        fields["columns"] = _names(texts["columns"])
    if "size" in texts and (size := size_of(texts["size"])) is None:
        faults.append(Fault("/size", f"expected HEIGHTxWIDTH, each 1 to {LARGEST_SIDE}", "as in 64x64", "size"))
    elif "size" in texts:
        fields["size"] = size
    if "rate" in texts and not re.fullmatch("[0-9]{4,5}", texts["rate"]):
        faults.append(
            Fault("/rate", f"expected {LOWEST_RATE} to {HIGHEST_RATE} samples a second", "as in 16000", "rate")
        )
    elif "rate" in texts:
        fields["rate"] = int(texts["rate"])
    if "length" in texts and not re.fullmatch("[1-9][0-9]{0,4}", texts["length"]):
        faults.append(Fault("/length", "expected a whole number, 1 to 65536", "as in 64", "length"))
    elif "length" in texts:
        fields["length"] = int(texts["length"])
    if "classes" in texts:
        try:
            fields["classes"] = _classes(texts["classes"])
        except (ValueError, RecursionError):
            hint = 'as in {"species": ["cat", "dog"]}'
            faults.append(Fault("/classes", "it begins as a JSON object and is none", hint, "type"))
    try:
        return validate(ImportOptions, fields)
    except Invalid as invalid:
        faults += invalid.faults
        return None


def _classes(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return json.loads(text)
    return "none" if text.strip() == "none" else _names(text)


def _names(text: str) -> list[str]:
    """Names between commas; where there are several lines, a name a line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else [name.strip() for name in re.split(",", text.strip()) if name.strip()]
