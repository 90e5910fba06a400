"""/v1/models: every model that a finished stage left, and predictions with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app import artifacts, data, datasets, db, inference, logs, models
from app.api import deps, prediction_files, shapes
from app.api.bodies import expect_multipart, object_body, unknown_fields
from app.api.deps import Cursor, FilterText, IfNoneMatch, InTransaction, Limit, Reference
from app.api.files import Asked, IfRange, Range, sent
from app.api.pages import page
from app.api.prediction_files import Sent
from app.api.shapes import ModelShape, Page, Prediction, Predictions
from app.api.threads import apart
from app.artifacts import OTHER_MEDIA_TYPE, Stored
from app.data import file_rows, inputs, tokens
from app.data.encode import encode_rows
from app.data.source import Source
from app.db import Session
from app.errors import Problem
from app.spec import tasks
from app.spec.data import InputSchema
from app.spec.faults import Fault, Invalid
from app.spec.lookup import Missing
from app.spec.models import FEATURES, Manifest, TaskManifest
from app.tables import Model

router = APIRouter(prefix="/v1/models", tags=["models"])

log = logs.get(__name__)

MAX_ROWS = 1024
KERAS_FILE: dict[str, Any] = {OTHER_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}
PNG, LINES = "image/png", "application/x-ndjson"
_MOST_VALUES = 2**28  # of files that are sent: a small file may become a large row


@router.get("", responses=deps.problem_responses(), summary="List models")
def list_models(
    request: Request,
    response: Response,
    session: InTransaction,
    limit: Limit = 50,
    cursor: Cursor = None,
    name: FilterText = None,
    job: FilterText = None,
    role: FilterText = None,
) -> Page[ModelShape]:
    """Newest first: jobs' own models (`role` model) and those of their stages (source, teacher, control/0, …). A page may hold fewer than
    `limit`: it ends at 4 MiB."""
    rows = models.page(session, limit=limit + 1, before=cursor, name=name, job_id=job, role=role)
    return page(request, response, rows, limit, lambda model: model.id, lambda model: _shape(session, model))


@router.post(
    "/{ref:path}/predict",
    response_model=Predictions,
    response_model_exclude_none=True,
    responses={
        200: {
            "content": {PNG: {"schema": {"type": "string", "format": "binary"}}, LINES: {"schema": {"type": "string"}}}
        },
        **deps.problem_responses(
            *("not_found", "malformed_body", "unsupported_media_type", "invalid"),
            *("model_differs", "inference_unavailable"),
        ),
    },
    openapi_extra=deps.body_in_openapi(
        {
            "type": "object",
            "oneOf": [{"required": ["inputs"]}, {"required": ["dataset"]}],
            "additionalProperties": False,
            "properties": {
                "dataset": {
                    "type": "string",
                    "description": "a data set: the answers to all of its rows, a JSON object a line, in their order",
                },
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_ROWS,
                    "description": "rows: nested lists of the manifest's input shape, objects of a table's columns, texts or tokens, "
                    'files as {"file": base64}, or objects of several parts',
                    "items": {"anyOf": [{"type": "array", "items": {}}, {"type": "object"}, {"type": "string"}]},
                },
            },
        },
        example={"inputs": [{"petal length (cm)": 1.4}]},
        form={
            "type": "object",
            "required": ["file"],
            "additionalProperties": False,
            "properties": {
                "file": {
                    "type": "array",
                    "maxItems": MAX_ROWS,
                    "items": {"type": "string", "format": "binary", "description": "a picture or a sound"},
                },
                "row": {
                    "type": "array",
                    "maxItems": MAX_ROWS,
                    "items": {"type": "string", "description": "JSON: what each row has besides its file"},
                },
            },
        },
    ),
    summary="Predict with a model",
)
async def predict(request: Request, ref: Reference) -> Predictions | Response:
    """Every task's answer for every row, or of a trunk without heads its features, a `vector`; or for every picture or
    sound: `curl -F file=@bird.jpg`, several files in the order they are sent, each with the rest of its row in `row` where
    a model takes more: `-F row='{"age": 41}'`.
    `ref` is a model's id, `job:ID`, or `model:NAME@VERSION`. With `Accept: image/png` a model that
    finds boxes answers to one picture with that picture, the boxes drawn on it.

    `{"dataset": "ds_…"}` asks for the answers to every row of a data set: lines of JSON, `row` counted from 0, as they
    are computed. A stream that ends in a line with `error` is not whole."""
    await run_in_threadpool(_model, ref)  # its body may be long: where there is no model, it is not read
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        expect_multipart(request)
        async with request.form(max_files=MAX_ROWS, max_fields=MAX_ROWS) as form:
            answer = _drawn if PNG in request.headers.get("accept", "") else _predict_form
            return await apart("predictions", answer, ref, await prediction_files.of_form(form))
    body = await object_body(request)
    if "dataset" in body:
        return await run_in_threadpool(_predict_all, ref, body)
    return await apart("predictions", _predict, ref, body)


@router.get(
    "/{ref:path}/file",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": KERAS_FILE},
        206: {"description": "The part that was asked for.", "content": KERAS_FILE},
        304: {"description": "It has not changed."},
        **deps.problem_responses("not_found", "range_not_satisfiable"),
    },
    summary="Download a model",
)
@deps.looks_twice
def get_model_file(
    session: InTransaction,
    ref: Reference,
    if_none_match: IfNoneMatch = None,
    range_: Range = None,
    if_range: IfRange = None,
) -> Response:
    """Its `.keras` file of stock layers; `manifest.loading` says how it is asked. The ETag is the file's sha256."""
    model = models.get(session, ref)
    asked = Asked(if_none_match, range_, if_range)
    return sent(Stored(model.sha256, model.bytes), "model.keras", OTHER_MEDIA_TYPE, asked)


@router.get(
    "/{ref:model}",
    response_model=ModelShape,
    responses={304: {"description": "It has not changed."}, **deps.problem_responses("not_found")},
    summary="Get a model",
)
def get_model(session: InTransaction, ref: Reference, if_none_match: IfNoneMatch = None) -> Response:
    """`ref` is a model's id, `job:ID`, `job:ID/ROLE`, or `model:NAME@VERSION`."""
    return deps.tagged(_shape(session, models.get(session, ref)), if_none_match)


@router.delete(
    "/{ref:model}",
    status_code=204,
    responses=deps.problem_responses("not_found", "conflict"),
    summary="Delete a model that was sent as a file",
)
def delete_model(session: InTransaction, ref: Reference) -> None:
    """Bytes and all. 409 names the jobs and models that rest on it; a job's model goes with its job."""
    models.delete(session, ref)


def _shape(session: Session, model: Model) -> ModelShape:
    return shapes.of_model(model, list(models.edges(session, [model.id])))


@deps.looks_twice
def _predict(ref: str, body: dict[str, Any]) -> Predictions:
    model = _model(ref)
    manifest = models.manifest(model)
    sent = prediction_files.of_body(body, manifest.input, MAX_ROWS)
    if sent is not None:
        return _predict_files(model, manifest, sent)
    rows = _rows(body, manifest)
    return _answers(model, manifest, inference.predict(artifacts.model_file(model.sha256), rows), rows)


def _answers(
    model: Model,
    manifest: Manifest,
    outputs: dict[str, list[Any]],
    rows: Sequence[Any] | NDArray[np.float32],
    sizes: Sequence[Sequence[int] | None] = (),
) -> Predictions:
    """`rows`: as the model was fed them; empty ones where they came as files, of which `sizes` has each picture's."""
    if any(len(outputs.get(name, [])) != len(rows) for name in manifest.tasks or (FEATURES,)):
        raise Problem("internal", "The inference process answered for other rows than those it was given.")
    if not manifest.tasks:
        vectors = [np.ravel(features).tolist() for features in outputs[FEATURES]]
        return Predictions(model=model.id, predictions=[{FEATURES: Prediction(vector=vector)} for vector in vectors])
    if tokens.SEEN in outputs:
        pieces = _pieces(artifacts.model_file(model.sha256))
        rows = [tasks.TokenRow(ids, pieces) for ids in outputs[tokens.SEEN]]
    answers = [
        {
            name: _prediction(task, outputs[name][index], row, manifest.input, sizes[index] if sizes else None)
            for name, task in manifest.tasks.items()
        }
        for index, row in enumerate(rows)
    ]
    return Predictions(model=model.id, predictions=answers)


@lru_cache(16)
def _pieces(model: Path) -> list[bytes]:
    """The bytes that each token of a kept model's tokenizer stands for."""
    content = tokens.within(model)
    return [] if content is None else tokens.pieces(content)


def _predict_all(ref: str, body: dict[str, Any]) -> Response:
    """The answers to all rows of a data set, some at a time."""
    model = _model(ref)
    manifest = models.manifest(model)
    faults, rows = unknown_fields(body, ["dataset"]), None
    try:
        rows = _fitting(body["dataset"], manifest)
    except Invalid as invalid:
        faults += invalid.faults
    if faults or rows is None:
        raise Invalid(faults)
    return StreamingResponse(_lines(model, manifest, rows), media_type=LINES, headers={"bequest-rows": str(len(rows))})


def _fitting(dataset: Any, manifest: Manifest) -> Source:
    """The stored rows of a data set. Raises Invalid where there is none, or its rows are no inputs of the model."""
    if not isinstance(dataset, str):
        raise Invalid(
            [Fault("/dataset", "expected a data set's id or name", "GET /v1/datasets lists them", "string_type")]
        )
    try:
        with db.transaction() as session:
            table = data.load(dataset, datasets.entry(session, dataset))
    except Missing as missing:
        raise Invalid([Fault("/dataset", missing.message, missing.hint, "unknown_name")]) from None
    ours, theirs = table.schema.input, manifest.input
    if not inputs.fits(ours, theirs):
        message = f"it has {inputs.in_words(ours)}, the model takes {inputs.in_words(theirs)}"
        hint = "use a data set with the same columns, sizes and rate as the one that trained the model"
        raise Invalid([Fault("/dataset", message, hint, "input_mismatch")])
    return table.inputs


def _lines(model: Model, manifest: Manifest, rows: Source) -> Iterator[bytes]:
    """A line for each row; last a line with `error` where the answers could not go on."""
    at_once = max(1, min(MAX_ROWS // 4, _MOST_VALUES // 256 // prod(rows.shape[1:])))
    for start in range(0, len(rows), at_once):
        some = rows[np.arange(start, min(start + at_once, len(rows)))].astype(np.float32)
        try:
            answers = _answers(model, manifest, inference.predict(artifacts.model_file(model.sha256), some), some)
        except (Problem, Invalid) as broken:
            log.warning("predictions of a data set broke off", row=start, why=str(broken))
            yield json.dumps({"row": start, "error": str(broken)}).encode() + b"\n"
            return
        told = answers.model_dump(exclude_none=True)["predictions"]
        yield b"".join(
            json.dumps({"row": start + number, **one}, ensure_ascii=False).encode() + b"\n"
            for number, one in enumerate(told)
        )


@deps.looks_twice
def _predict_form(ref: str, sent: Sent) -> Predictions:
    model = _model(ref)
    return _predict_files(model, models.manifest(model), sent)


def _predict_files(model: Model, manifest: Manifest, sent: Sent) -> Predictions:
    """Raises Invalid, pointers as the files were sent."""
    decoding = inputs.decoding(manifest.input)
    if decoding is None:
        hint = f"its rows are of kind {manifest.input.kind}: send them as JSON"
        raise Invalid([Fault(sent.at, "no file can become a row of this model", hint, "unsupported_format")])
    files, values = sent.files, prod(manifest.input.shape)
    if len(files) * values > _MOST_VALUES:
        message = f"{len(files)} files become {len(files) * values} numbers, at most {_MOST_VALUES} are taken at once"
        raise Invalid([Fault(sent.at, message, f"send at most {_MOST_VALUES // values} files", "too_large")])
    beside = prediction_files.beside(sent, manifest.input)
    with prediction_files.pointing(sent):
        outputs, sizes = inference.predict_files(artifacts.model_file(model.sha256), files, decoding, beside)
    return _answers(model, manifest, outputs, [()] * len(files), sizes)


def _drawn(ref: str, sent: Sent) -> Response:
    """The one picture that was sent, with the boxes of all tasks on it."""
    manifest, files, faults = models.manifest(_model(ref)), sent.files, []
    if not any(tasks.of_places(task.type) for task in manifest.tasks.values()):
        hint = "leave out Accept: image/png, and the answers are JSON"
        faults.append(
            Fault("/file", "no task of this model says where something is on a picture", hint, "not_applicable")
        )
    if len(files) != 1:
        message = f"{len(files)} files were sent, and a picture is the answer to one"
        faults.append(Fault("/file", message, "send them one by one, or leave out Accept: image/png", "too_many"))
    if faults:
        raise Invalid(faults)
    (answers,) = _predict_form(ref, sent).predictions
    boxes = [box.model_dump() for answer in answers.values() for box in answer.boxes or ()]
    return Response(inference.draw(files[0], boxes), media_type=PNG)


def _model(ref: str) -> Model:
    """Read in a session of its own: none is held while a body comes or the inference program works."""
    with db.transaction() as session:
        return models.get(session, ref)


def _rows(body: dict[str, Any], manifest: Manifest) -> NDArray[np.float32]:
    """The rows of a body, as the model is fed them. Raises Invalid, with every fault in them."""
    faults = unknown_fields(body, ["inputs"])
    rows = body.get("inputs")
    encoded = np.zeros(0, np.float32)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_ROWS:
        hint = f"the input's shape is {manifest.input.shape}; see the model's manifest.input"
        faults.append(Fault("/inputs", f"expected a list of 1 to {MAX_ROWS} rows", hint, "list_type"))
    else:
        try:
            encoded = encode_rows(rows, manifest.input)
        except Invalid as invalid:
            faults += [
                fault if fault.pointer.startswith("/inputs") else fault.under("/inputs") for fault in invalid.faults
            ]
    if faults:
        raise Invalid(faults)
    return encoded


def _prediction(
    task: TaskManifest,
    output: list[Any],
    row: Any,
    input: InputSchema,
    size: Sequence[int] | None,
) -> Prediction:
    """A row's outputs in the words and units of the data. `size`: of the file that was sent, where it is a picture."""
    fields = tasks.prediction(task.type, output, task.classes or (), row)
    if tasks.of_places(task.type):
        decoding = inputs.decoding(input)
        height, width = input.shape[:2]
        back = file_rows.back(size, decoding) if size and decoding else ((height, 0.0), (width, 0.0))
        fields = tasks.placed(task.type, fields, size or (height, width), back)
    return Prediction(**fields)
