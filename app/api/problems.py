"""Turns every failure into one shape: RFC 9457 `application/problem+json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from app import db, logs
from app.data import disk
from app.errors import PROBLEMS, Problem, refused
from app.spec import faults
from app.spec.registry import NotInstalled

log = logs.get(__name__)

MEDIA_TYPE = "application/problem+json"

_OF_STATUS = {
    400: "malformed_body",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "invalid",
}


class FaultShape(BaseModel):
    """One thing wrong, and where."""

    pointer: str = Field(description="RFC 6901 pointer into the body; /query/…, /path/… or /header/… for a parameter")
    message: str
    hint: str | None
    code: str


class ProblemShape(BaseModel):
    """RFC 9457 problem details: the one shape of every error."""

    type: str = Field(description="path of this problem's help page", examples=["/problems/invalid"])
    title: str
    status: int
    detail: str
    code: str = Field(json_schema_extra={"enum": list(PROBLEMS)})
    request_id: str
    errors: list[FaultShape]


def respond(problem: Problem, request_id: str) -> Response:
    """The answer for a problem."""
    body = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
        "errors": faults.written(problem.errors),
    }
    return Response(
        json.dumps(body, ensure_ascii=True),
        problem.status,
        {**problem.headers, "cache-control": "no-store"},
        MEDIA_TYPE,
    )


def internal() -> Problem:
    """The problem for a fault of our own: it says only where to look."""
    return Problem("internal", "The service failed to answer this request. Its log has the details under request_id.")


def install(app: FastAPI) -> None:
    """Registers the handlers; whatever they leave over becomes a 500 in `app/api/middleware.py`."""
    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(faults.Invalid, _answer)
    app.add_exception_handler(NotInstalled, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(OperationalError, _answer)
    app.add_exception_handler(InterfaceError, _answer)
    app.add_exception_handler(InternalError, _answer)
    app.add_exception_handler(PoolTimeout, _answer)
    app.add_exception_handler(DataError, _answer)
    app.add_exception_handler(OSError, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    problem = of(error)
    if problem.code == "method_not_allowed":
        problem.headers = {"allow": ", ".join(_methods(request))}
    return respond(problem, request.state.request_id)


def _methods(request: Request) -> list[str]:
    """The methods that the path takes, over all routes: Starlette names those of the first route with the path."""
    scope = {"type": "http", "path": request.scope["path"], "root_path": "", "headers": []}
    taken = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return [*taken, *(["HEAD"] if "GET" in taken else [])]


def of(error: Exception) -> Problem:
    """The problem that an exception amounts to."""
    match error:
        case Problem():
            return error
        case faults.Invalid():
            return refused(error.faults)
        case NotInstalled():
            return refused([faults.Fault("", str(error), "install the plugin that brings it", "not_available")])
        case RequestValidationError():
            return refused(_parameter_faults(error.errors()), code="invalid_parameter")
        case HTTPException():
            return _of_http(error.status_code, error.headers or {})
        case OperationalError() | InterfaceError() | PoolTimeout() | InternalError(connection_invalidated=True):
            if db.ran_out_of_disk(error):
                log.error("the disk of the database is full", exc_info=error)
                return _disk_full()
            log.error("the database does not answer", exc_info=error)
            return Problem(
                "database_unavailable", "The database does not answer; ask again.", headers={"retry-after": "5"}
            )
        case OSError() if disk.is_full(error):
            log.error("the disk is full", exc_info=error)
            return _disk_full()
        case _:
            log.error("request failed", exc_info=error)
            return internal()


def _disk_full() -> Problem:
    return Problem(
        "disk_full",
        "The disk of the data folder is full; nothing was stored. Delete jobs or data sets, then send it again.",
    )


def _of_http(status: int, headers: Mapping[str, str]) -> Problem:
    """Starlette's own refusals: no such path, another method, a form that cannot be read."""
    code = _OF_STATUS.get(status, "internal" if status >= 500 else "invalid")
    detail = {
        "not_found": "Nothing is served at this path; /docs lists all paths.",
        "method_not_allowed": "This path does not take that method; the Allow header lists those that it does.",
        "malformed_body": "The body could not be read.",
    }.get(code, PROBLEMS[code].title + ".")
    return Problem(code, detail, headers=headers)


def _parameter_faults(errors: Sequence[Any]) -> list[faults.Fault]:
    # Only place and kind are taken: `input` and `ctx` hold the caller's text.
    return [
        faults.Fault(
            faults.pointer(*error["loc"]),
            "this parameter is required" if error["type"] == "missing" else error["msg"][:1].lower() + error["msg"][1:],
            None,
            error["type"],
        )
        for error in errors
    ]
