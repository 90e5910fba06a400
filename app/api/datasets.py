"""/v1/datasets: the built-in ones and uploads. An upload is parsed in a child process; same bytes, same data set."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast, get_args

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartParser

from app import datasets, intake
from app.api import deps
from app.api.admission import aside
from app.api.bodies import complaint, expect_multipart
from app.api.deps import Cursor, DatasetId, IfNoneMatch, InTransaction, Limit
from app.api.pages import page
from app.api.shapes import DatasetShape, DatasetSummary, Page, Preview
from app.api.threads import apart
from app.data.names import LONGEST
from app.data.readers import FORMATS
from app.errors import refused
from app.settings import settings
from app.spec.faults import Fault, Invalid, nearest
from app.spec.intake import (
    HIGHEST_RATE,
    LARGEST_SIDE,
    LONGEST_SOUND,
    LONGEST_TEXT,
    LOWEST_RATE,
    SHORTEST_SOUND,
    SHORTEST_TEXT,
    SIZE,
    Fit,
    UploadOptions,
    columns_in,
    size_of,
)

MultiPartParser.spool_max_size = 64 * 1024  # the rest of an upload lies on the disk, where it is counted

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_TEXTS = ("name", "format", "targets", "inputs", "size", "fit", "length", "rate", "seconds", "skip_broken")
_LISTS = ("targets", "inputs")
_FIELDS = ("file", *_TEXTS)
_FIELD_BYTES = 16 * 1024
_MOST_TARGETS, _LONGEST_TARGET = 100, 160
_COLUMNS = f"may be repeated. At most {_MOST_TARGETS} columns of {_LONGEST_TARGET} characters."
_FORM = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "a zip or tar(.gz) of class folders, a .csv with a header, or an .npz (numpy.savez)",
        },
        "name": {
            "type": "string",
            "maxLength": LONGEST,
            "pattern": r"^[^/\\\x00-\x1f\x7f]*$",
            "description": "a label; the file's name when left out",
        },
        "format": {"type": "string", "enum": list(FORMATS), "description": "found by looking when left out"},
        "targets": {
            "type": "string",
            "maxLength": _FIELD_BYTES,
            "description": f"columns to learn: a,b or a:category,b:number; {_COLUMNS}",
        },
        "inputs": {
            "type": "string",
            "maxLength": _FIELD_BYTES,
            "description": f"columns to learn from, all others when left out: a,b or a:number,b:category; {_COLUMNS}",
        },
        "size": {
            "type": "string",
            "pattern": SIZE.pattern,
            "description": "of pictures, HEIGHTxWIDTH; what they all have when left out, else 224x224",
        },
        "fit": {"type": "string", "enum": list(get_args(Fit)), "description": "how a picture comes to its size; pad"},
        "length": {
            "type": "string",
            "pattern": "^[1-9][0-9]{1,3}$",
            "description": f"of texts, in bytes, {SHORTEST_TEXT} to {LONGEST_TEXT}; a longer one is cut. "
            "When left out: the longest's, at most 512",
        },
        "rate": {
            "type": "string",
            "pattern": "^[1-9][0-9]{3,4}$",
            "description": f"of sounds, samples a second, {LOWEST_RATE} to {HIGHEST_RATE}. When left out: what they all have, else 16000",
        },
        "seconds": {
            "type": "string",
            "pattern": r"^[0-9]{1,2}(\.[0-9]{1,6})?$",
            "description": f"of sounds, {SHORTEST_SOUND} to {LONGEST_SOUND:g}; a longer one is cut, a shorter one filled with silence. "
            "When left out: the longest's, at most 10",
        },
        "skip_broken": {
            "type": "string",
            "enum": ["true", "false"],
            "description": "go on without the files that cannot be read, however many they are",
        },
    },
}
_EXAMPLE = {"file": "petal,species\n1.4,setosa\n4.7,versicolor\n", "name": "flowers", "targets": "species"}


@dataclass(frozen=True)
class Upload:
    """The fields of an upload's form."""

    file: UploadFile
    name: str | None
    format: str | None
    options: UploadOptions


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
        **deps.problem_responses("malformed_body", "unsupported_media_type", "invalid", "dataset_invalid", "disk_full"),
    },
    openapi_extra=deps.body_in_openapi(_FORM, "multipart/form-data", example=_EXAMPLE),
    summary="Upload a data set",
)
async def upload_dataset(request: Request) -> Response:
    """`curl -F file=@flowers.csv -F targets=species`, `curl -F file=@photos.zip -F size=64x64`,
    `curl -F file=@sounds.zip -F seconds=2`. The file's name is a label and never a path.
    """
    expect_multipart(request)
    async with request.form(max_files=2, max_fields=64, max_part_size=_FIELD_BYTES) as form:
        with aside(request):
            shape, existed = await apart("uploads", _store, _read(form))
    headers = {"location": f"/v1/datasets/{shape.id}"}
    status = 202 if shape.state == "preparing" else 200 if existed else 201
    return deps.tagged(shape, None, status=status, headers=headers)


def _read(form: FormData) -> Upload:
    """The fields of a form. Raises Invalid with all that is wrong with them."""
    faults = [
        Fault(f"/{name}", "unknown field", nearest(name, _FIELDS, "fields"), "unknown_field")
        for name in dict.fromkeys(form)
        if name not in _FIELDS
    ]
    faults += [
        Fault(f"/{name}", "this field stands twice", "send it once", "duplicate_key")
        for name in _FIELDS
        if name not in _LISTS and len(form.getlist(name)) > 1
    ]
    faults += [
        Fault(f"/{name}", "expected text, not a file", f"curl: -F {name}=TEXT", "text")
        for name in _TEXTS
        if any(isinstance(value, UploadFile) for value in form.getlist(name))
    ]
    texts = {name: [value for value in form.getlist(name) if isinstance(value, str)] for name in _TEXTS}
    faults += [
        Fault(f"/{name}", reason, "remove the character", "text")
        for name, given in texts.items()
        if (reason := next(filter(None, map(complaint, given)), None))
    ]
    options = _options(texts, faults)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        faults.append(Fault("/file", "expected a file", "curl: -F file=@NAME", "missing"))
    if faults:
        raise Invalid(faults)
    assert isinstance(file, UploadFile)
    return Upload(file, _first(texts["name"]), _first(texts["format"]), options)


def _options(texts: dict[str, list[str]], faults: list[Fault]) -> UploadOptions:
    """The options of an upload; what is wrong with them is added to `faults`."""
    lists = {}
    for name in _LISTS:
        columns = columns_in(texts[name])
        if len(columns) > _MOST_TARGETS or any(len(column) > _LONGEST_TARGET for column in columns):
            expected = f"expected at most {_MOST_TARGETS} columns, of at most {_LONGEST_TARGET} characters each"
            faults.append(Fault(f"/{name}", expected, "name only what is needed", "too_long"))
        lists[name] = columns
    size, fit, length, skip = (_first(texts[name]) for name in ("size", "fit", "length", "skip_broken"))
    if size and size_of(size) is None:
        faults.append(Fault("/size", f"expected HEIGHTxWIDTH, each 1 to {LARGEST_SIDE}", "as in 64x64", "size"))
    if fit is not None and fit not in get_args(Fit):
        faults.append(Fault("/fit", "unknown fit", nearest(fit, get_args(Fit), "fits"), "unknown_name"))
        fit = None
    if length and not (re.fullmatch("[0-9]{1,5}", length) and SHORTEST_TEXT <= int(length) <= LONGEST_TEXT):
        faults.append(Fault("/length", f"expected {SHORTEST_TEXT} to {LONGEST_TEXT} bytes", "as in 256", "length"))
        length = None
    rate, seconds = _of_sounds(texts, faults)
    if skip not in (None, "true", "false"):
        faults.append(Fault("/skip_broken", "expected true or false", None, "bool"))
    return UploadOptions(
        targets=lists["targets"],
        inputs=lists["inputs"],
        size=size_of(size) if size else None,
        fit=cast("Fit | None", fit),
        length=int(length) if length else None,
        rate=rate,
        seconds=seconds,
        skip_broken=skip == "true",
    )


def _of_sounds(texts: dict[str, list[str]], faults: list[Fault]) -> tuple[int | None, float | None]:
    """`rate` and `seconds`; what is wrong with them is added to `faults`."""
    rate, seconds = _first(texts["rate"]), _first(texts["seconds"])
    if rate and not (re.fullmatch("[0-9]{4,5}", rate) and LOWEST_RATE <= int(rate) <= HIGHEST_RATE):
        expected = f"expected {LOWEST_RATE} to {HIGHEST_RATE} samples a second"
        faults.append(Fault("/rate", expected, "as in 16000", "rate"))
        rate = None
    plain = re.compile(r"[0-9]{1,2}(\.[0-9]{1,6})?")
    if seconds and not (plain.fullmatch(seconds) and SHORTEST_SOUND <= float(seconds) <= LONGEST_SOUND):
        expected = f"expected {SHORTEST_SOUND} to {LONGEST_SOUND:g} seconds"
        faults.append(Fault("/seconds", expected, "as in 2.5", "seconds"))
        seconds = None
    return int(rate) if rate else None, float(seconds) if seconds else None


def _first(given: list[str]) -> str | None:
    return given[0] or None if given else None


def _store(upload: Upload) -> tuple[DatasetShape, bool]:
    """The data set of the upload's bytes, and whether it existed before."""
    with _spooled(upload.file) as raw:
        try:
            dataset, new = intake.add(
                raw,
                filename=upload.file.filename or None,
                name=upload.name,
                format=upload.format,
                options=upload.options,
            )
        except Invalid as invalid:
            in_file = any(fault.pointer.startswith("/file") for fault in invalid.faults)
            raise refused(invalid.faults, code="dataset_invalid" if in_file else "invalid") from None
        return DatasetShape.of(dataset), not new


@contextmanager
def _spooled(file: UploadFile) -> Iterator[Path]:
    """The uploaded bytes as a file of a name that we chose, beside the store; gone afterwards."""
    folder = settings().store / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / f"upload-{uuid.uuid4().hex}"
    try:
        with raw.open("xb") as target:
            shutil.copyfileobj(file.file, target, 1 << 20)
        yield raw
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
    responses=deps.problem_responses("not_found", "dataset_not_ready"),
    summary="A data set's first rows",
)
@deps.looks_twice
def preview_dataset(
    session: InTransaction, dataset_id: DatasetId, rows: Annotated[int, Query(ge=1, le=100)] = 10
) -> Preview:
    """`input` is as `predict` takes it; columns are in words. Of large pictures fewer rows come, a million numbers in all."""
    return Preview(rows=datasets.preview(session, dataset_id, rows))


@router.delete(
    "/{dataset_id}",
    status_code=204,
    responses=deps.problem_responses("not_found", "conflict", "dataset_in_use"),
    summary="Delete an upload",
)
def delete_dataset(session: InTransaction, dataset_id: DatasetId) -> None:
    """Bytes and all. 409 names the jobs and models that rest on it."""
    datasets.delete(session, dataset_id)
