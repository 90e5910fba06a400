"""What many paths share: the session, parameters with their limits, pages, conditional answers."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Header, Path, Query, Request
from fastapi.dependencies.models import Dependant
from pydantic import AfterValidator, BaseModel
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from app.api.problems import MEDIA_TYPE, ProblemShape
from app.db import Session, get_session
from app.errors import PROBLEMS, NotFound, refused
from app.spec.faults import MOST, Fault, nearest, pointer
from app.spec.models import DATASET_REF

Item = TypeVar("Item")
Result = TypeVar("Result")
Given = ParamSpec("Given")

MAX_PAGE = 200
MAX_WAIT_SECONDS = 60.0

_MOST_SESSIONS = 20  # fewer than the pool of `app.db` has connections

InTransaction = Annotated[Session, Depends(get_session, scope="function", max_concurrency=_MOST_SESSIONS)]
"""A session whose transaction commits before the answer leaves. It is a path's last dependency, so no session waits for a client's body.

A session keeps its connection while FastAPI waits for a thread to check the path's answer. Were all connections kept so, and
all threads waiting for one, nothing would move.
"""


_JOB_ID = r"^job_[0-9a-f]{32}$"
_PIPELINE_ID = r"^pipe_[0-9a-f]{32}$"
_MODEL_REF = (
    r"^(job:job_[0-9a-f]{32}(/[A-Za-z0-9/_-]{1,200})?|mdl_[0-9a-f]{32}|model:[^\x00-\x1f\x7f]{1,128}(@[0-9]{1,9})?"
    r"|pretrained:[A-Za-z0-9_.-]{1,64})$"
)
_ARTIFACT = r"^[^\x00-\x1f\x7f]{1,256}$"
_CURSOR = r"^1\.[A-Za-z0-9_.-]{1,128}$"


def _named(pattern: str) -> AfterValidator:
    """Refuses, as a 404, a text that names nothing: the database, for which a NUL is an error, is not asked."""

    def named(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise NotFound("Nothing has an id or name like this one.")
        return text

    return AfterValidator(named)


def _cursor(text: str | None) -> str | None:
    """The id behind which the page begins."""
    if text is None:
        return None
    if not re.fullmatch(_CURSOR, text):
        raise ValueError("take next_cursor from the page before, as it is")
    return text.removeprefix("1.")


class _JobPath(StringConvertor):
    """`{job_id:job}` leaves `/v1/jobs/validate` to its own path, so that each path has the methods of one resource alone."""

    regex = "job_[^/]+"


class _ModelPath(StringConvertor):
    """`{ref:model}` may hold slashes and leaves `/v1/models/{ref}/predict` and `…/file` to paths of their own."""

    regex = ".*(?<!/predict)(?<!/file)"


register_url_convertor("job", _JobPath())
register_url_convertor("model", _ModelPath())

JobId = Annotated[str, Path(description="job_…", json_schema_extra={"pattern": _JOB_ID}), _named(_JOB_ID)]
PipelineId = Annotated[
    str, Path(description="pipe_…", json_schema_extra={"pattern": _PIPELINE_ID}), _named(_PIPELINE_ID)
]
DatasetId = Annotated[
    str, Path(description="a built-in's name, or ds_…", json_schema_extra={"pattern": DATASET_REF}), _named(DATASET_REF)
]
Reference = Annotated[
    str,
    Path(
        description="mdl_…, job:ID, job:ID/ROLE, model:NAME@VERSION, or pretrained:NAME",
        json_schema_extra={"pattern": _MODEL_REF},
    ),
    _named(_MODEL_REF),
]
ArtifactName = Annotated[str, Path(json_schema_extra={"pattern": _ARTIFACT}), _named(_ARTIFACT)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="entries a page")]
Cursor = Annotated[
    str | None,
    Query(description="next_cursor of the page before", json_schema_extra={"pattern": _CURSOR}),
    AfterValidator(_cursor),
]
FilterText = Annotated[str | None, Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
IfNoneMatch = Annotated[str | None, Header(description="an ETag: the answer is 304 while it still holds")]


async def known_parameters(request: Request) -> None:
    """Refuses query parameters that the path does not have, or that stand twice: a misspelt filter would list everything."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    if not isinstance(dependant, Dependant):
        return
    parameters = sorted({field.alias for part in _all(dependant) for field in part.query_params})
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in parameters]
    faults = [
        Fault(
            pointer("query", name),
            "this path has no such parameter",
            nearest(name, parameters, "parameters"),
            "unknown",
        )
        for name in unknown[:MOST]
    ]
    given = Counter(name for name, _ in request.query_params.multi_items())
    faults += [
        Fault(pointer("query", name), f"this parameter stands {times} times", "give it once", "duplicate_key")
        for name, times in given.items()
        if times > 1 and name in parameters
    ]
    if faults:
        raise refused(faults, code="invalid_parameter")


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _all(inner)


async def prefer_wait(
    prefer: Annotated[str | None, Header(description="`wait=N`: hold the answer up to N seconds (at most 60)")] = None,
) -> float:
    """Seconds that the client prefers to wait (RFC 7240); 0 for none, or for a preference that is not understood."""
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", prefer or "", re.IGNORECASE)
    return min(float(match[1]), MAX_WAIT_SECONDS) if match else 0.0


Wait = Annotated[float, Depends(prefer_wait)]


def looks_twice(read: Callable[Given, Result]) -> Callable[Given, Result]:
    """`read`, tried once more where a file is missing: a DELETE may have come after its row was read, and the second try is a 404.

    A file that is missing even so is lost, a fault of ours.
    """

    @wraps(read)
    def twice(*arguments: Given.args, **named: Given.kwargs) -> Result:
        try:
            return read(*arguments, **named)
        except FileNotFoundError:
            if isinstance(session := named.get("session"), Session):
                session.expunge_all()  # it would show the rows as they were
            return read(*arguments, **named)

    return twice


def accepts(request: Request, media_type: str) -> bool:
    """Whether the Accept header names this very type; `*/*` means the path's first choice, JSON."""
    for part in request.headers.get("accept", "").lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == media_type and not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
            return True
    return False


def turn(
    request: Request, response: Response, items: Sequence[Item], limit: int, ids: Any
) -> tuple[list[Item], str | None]:
    """Cuts a list that was read one longer than `limit` into a page, and says where the next begins."""
    if len(items) <= limit:
        return list(items), None
    kept = list(items[:limit])
    cursor = f"1.{ids(kept[-1])}"
    query = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
    response.headers["link"] = f'<{request.url.path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'
    return kept, cursor


def tagged(
    shape: BaseModel, if_none_match: str | None, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The answer with an ETag of its content, or 304 when the client has it."""
    body = shape.model_dump_json(by_alias=True).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    all_headers = {"etag": etag, "cache-control": "private, no-cache", **(headers or {})}
    if matches(etag, if_none_match):
        return Response(status_code=304, headers=all_headers)
    return Response(body, status, all_headers, "application/json")


def matches(etag: str, header: str | None) -> bool:
    """Whether an If-None-Match header names the ETag, by weak comparison as RFC 9110 says."""
    named = [part.strip().removeprefix("W/") for part in (header or "").split(",")]
    return etag in named or "*" in named


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a path can answer with, beside those that every path has."""
    by_status: dict[int, list[str]] = {}
    for code in (
        "host_not_allowed",
        "origin_not_allowed",
        "body_too_large",
        "invalid_parameter",
        "request_timeout",
        "overloaded",
        "internal",
        "database_unavailable",
        *codes,
    ):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in dict.fromkeys(named)),
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemShape.__name__}"}}},
        }
        for status, named in sorted(by_status.items())
    }


def body_in_openapi(
    schema: dict[str, Any],
    media_type: str = "application/json",
    *,
    required: bool = True,
    example: Any = None,
    form: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describes a body that the path reads itself. `form`: the schema of the multipart form that may be sent instead."""
    content: dict[str, Any] = {media_type: {"schema": schema}}
    if example is not None:
        content[media_type]["example"] = example
    if form is not None:
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": required, "content": content}}
