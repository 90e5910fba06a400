"""/docs from files of our own (no CDN), the help pages of problems, and a complete /openapi.json."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterator
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from app.api import schemas
from app.api.problems import ProblemShape
from app.errors import PROBLEMS, NotFound, ProblemType
from app.programs import version
from app.settings import settings

router = APIRouter(include_in_schema=False)
reference = APIRouter(include_in_schema=False)

_SWAGGER = Path(__file__).parent.parent / "web" / "vendor" / "swagger-ui"
_DESCRIPTION = """A training-job service: transfer, multi-task learning and distillation as declared jobs that say
whether the method helped. Submit with `POST /v1/jobs`, follow with `GET /v1/jobs/{id}/events`, download with
`GET /v1/jobs/{id}/artifacts.zip`. `GET /v1/catalog` has all that works. Every error is RFC 9457 problem details."""
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}code{font-size:.95em}"


def install(app: FastAPI) -> None:
    """Adds the pages, Swagger UI's files, and our OpenAPI document."""
    app.include_router(router)
    if settings().docs:
        app.include_router(reference)
        app.mount("/docs/files", StaticFiles(directory=_SWAGGER), name="swagger-ui")
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]


@reference.get("/")
def home() -> RedirectResponse:
    return RedirectResponse("/docs")


@reference.get("/docs")
def docs() -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Bequest API",
        swagger_js_url="/docs/files/swagger-ui-bundle.js",
        swagger_css_url="/docs/files/swagger-ui.css",
        swagger_favicon_url="/docs/files/favicon-32x32.png",
    )
    own = " ".join(
        f"'sha256-{_digest(script)}'" for script in re.findall(rb"<script>(.*?)</script>", page.body, re.DOTALL)
    )
    page.headers["content-security-policy"] = (
        f"default-src 'self'; script-src 'self' {own}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    )
    return page


@router.get("/problems")
def problem_list() -> HTMLResponse:
    items = "".join(
        f'<li><a href="/problems/{kind.code}"><code>{kind.code}</code></a> ({kind.status}): {escape(kind.title)}</li>'
        for kind in PROBLEMS.values()
    )
    return _page("Problems", f"<p>Every error of this service is one of these.</p><ul>{items}</ul>")


@router.get("/problems/{code}")
def problem_page(code: str) -> HTMLResponse:
    kind = PROBLEMS.get(code)
    if kind is None:
        raise NotFound("There is no problem of that code; /problems lists them all.")
    return _page(kind.title, _explained(kind))


def _explained(kind: ProblemType) -> str:
    return (
        f"<p>Status {kind.status}, code <code>{kind.code}</code>.</p><p>{escape(kind.help)}</p>"
        '<p><a href="/problems">All problems</a> · <a href="/docs">All paths</a></p>'
    )


def _page(title: str, body: str) -> HTMLResponse:
    head = f'<meta charset="utf-8"><title>{escape(title)} – Bequest</title><style>{_STYLE}</style>'
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>',
        headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"},
    )


def _digest(script: bytes) -> str:
    return base64.b64encode(hashlib.sha256(script).digest()).decode()


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title="Bequest", version=version(), description=_DESCRIPTION, routes=app.routes)
        specs = schemas.of_jobs()
        document = _apart(document, specs)
        components = document["components"]["schemas"]
        schemas.with_open_keys(components)
        # FastAPI's own error shape: no path answers with it.
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        components |= {**schemas.of_model(ProblemShape), **specs, **schemas.of_reports()}
        for parameter in _parameters(document):
            parameter["schema"] = _without_null(parameter["schema"])
        app.openapi_schema = document
    return app.openapi_schema


def _parameters(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation.get("parameters", ())


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter, which is text or left out. Python's default of None is no value that could be sent."""
    match schema:
        case {"anyOf": [dict(given), {"type": "null"}], **about}:
            return given | about
        case _:
            return schema


def _apart(document: dict[str, Any], specs: Collection[str]) -> dict[str, Any]:
    """Gives an answer's schema another name where a spec's has the same: in a spec a default may be left out, in an answer it stands."""
    components = document["components"]["schemas"]
    names = {name: f"{name}Output" for name in components.keys() & set(specs)}
    for old, new in names.items():
        components[new] = {**components.pop(old), "title": new}
    moved = {schemas.COMPONENTS + old: schemas.COMPONENTS + new for old, new in names.items()}
    apart: dict[str, Any] = schemas.renamed(document, moved)
    return apart
