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
from app.model_files import json_text
from app.settings import settings
from app.spec.faults import Fault, Invalid, validate
from app.spec.imports import SCALES, ImportOptions
from app.spec.intake import HIGHEST_RATE, LARGEST_SIDE, LOWEST_RATE, SIZE, Fit, size_of
from app.spec.named_weights import WeightsOptions

router = APIRouter(prefix="/v1/models", tags=["models"])

FIELD_BYTES = 256 * 1024
WEIGHTS = "weights"
_OF_BOTH = ("name", "classes", "scale", "fit", "rate", "columns", "dataset", "target")
_TEXTS = (*_OF_BOTH, "size", "length", "output")
_WITH_WEIGHTS = (*_OF_BOTH, "architecture", "shape", "heads", "partial", "seed")
_FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "description": "`file`, a whole network; or `weights`, numbers alone, with `architecture`",
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "a .keras file of Keras 3, or a zip of graph.json and arrays.npz",
        },
        "weights": {
            "type": "string",
            "format": "binary",
            "description": "in place of `file`: a .weights.h5 of Keras 3 or a .safetensors, for the network that `architecture` names",
        },
        "architecture": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": 'of weights alone: resnet-20, applications:MobileNetV2, or JSON as in {"arch": "resnet", "depth": 20}, '
            "also what POST /v1/architectures answered",
        },
        "shape": {
            "type": "string",
            "pattern": "^([1-9][0-9]{0,6}(x[1-9][0-9]{0,6}){0,2})?$",
            "description": "of weights alone: the shape of a row, as in 32x32x3, where the architecture does not say it",
        },
        "heads": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": "of weights alone, in place of `classes`: JSON, {TASK: {type, classes, outputs, units, activation, dropout}}; "
            "`units` are of a hidden layer",
        },
        "partial": {
            "type": "string",
            "enum": ["true", "false"],
            "description": "of weights alone: what the file lacks stays as `seed` draws it, what the network lacks is left out; false",
        },
        "seed": {
            "type": "string",
            "pattern": "^([0-9]{1,10})?$",
            "description": "of weights alone, where they are partial; 0",
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
    """`options`: of a file of weights alone `WeightsOptions`."""

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
        filename, options = sent.file.filename or None, sent.options
        if isinstance(options, WeightsOptions):
            model, new = model_intake.add_weights(raw, filename=filename, name=sent.name, options=options)
        else:
            model, new = model_intake.add(raw, filename=filename, name=sent.name, options=options)
        return shapes.of_model(model, []), not new
    except Invalid as invalid:
        in_file = any(fault.pointer.startswith(("/file", "/weights")) for fault in invalid.faults)
        raise refused(invalid.faults, code="model_invalid" if in_file else "invalid") from None
    finally:
        raw.unlink(missing_ok=True)


def of_form(form: FormData) -> Sent:
    """The fields of a form. Raises Invalid with all that is wrong with them."""
    file, fields = (WEIGHTS, _WITH_WEIGHTS) if WEIGHTS in form and "file" not in form else ("file", _TEXTS)
    faults = form_faults(form, fields, file=file)
    texts = {name: text for name in fields for text in form_texts(form, name) if text}
    read = _options(texts, faults)
    more = _of_weights(texts, faults) if file == WEIGHTS else {}
    try:
        options = validate(WeightsOptions if file == WEIGHTS else ImportOptions, {**read, **more})
    except Invalid as invalid:
        raise Invalid([*faults, *invalid.faults]) from None
    if faults:
        raise Invalid(faults)
    sent = form[file]
    assert isinstance(sent, UploadFile)
    return Sent(sent, texts.get("name"), options)


def _of_weights(texts: dict[str, str], faults: list[Fault]) -> dict[str, Any]:
    """The fields that go with weights alone."""
    fields: dict[str, Any] = {}
    for name, example in {
        "architecture": '{"arch": "resnet", "depth": 20}',
        "heads": '{"age": {"outputs": 1}}',
    }.items():
        text = texts.get(name, "").strip()
        try:
            if name == "heads" or text.startswith("{"):
                fields |= {name: json_text.parsed(text.encode(), name)} if text else {}
            elif text:
                fields[name] = text
        except Invalid:
            faults.append(Fault(f"/{name}", "it begins as a JSON object and is none", f"as in {example}", "type"))
            fields |= {name: "cnn"} if name == "architecture" else {}  # its fault is told
    if "shape" in texts and not re.fullmatch("[1-9][0-9]{0,6}(x[1-9][0-9]{0,6}){0,2}", texts["shape"]):
        faults.append(Fault("/shape", "expected one to three sides", "as in 32x32x3", "size"))
    elif "shape" in texts:
        fields["shape"] = [int(side) for side in texts["shape"].split("x")]
    if texts.get("partial", "false") not in ("true", "false"):
        faults.append(Fault("/partial", "expected true or false", "-F partial=true", "type"))
    fields["partial"] = texts.get("partial") == "true"
    if "seed" in texts and not re.fullmatch("[0-9]{1,10}", texts["seed"]):
        faults.append(Fault("/seed", "expected a whole number", "as in 0", "type"))
    elif "seed" in texts:
        fields["seed"] = int(texts["seed"])
    return fields


def _options(texts: dict[str, str], faults: list[Fault]) -> dict[str, Any]:
    """The fields that go with any model."""
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
    return fields


def _classes(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return json.loads(text)
    return "none" if text.strip() == "none" else _names(text)


def _names(text: str) -> list[str]:
    """Names between commas; where there are several lines, a name a line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else [name.strip() for name in re.split(",", text.strip()) if name.strip()]
