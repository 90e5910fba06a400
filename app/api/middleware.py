"""The middleware of every request, in plain ASGI so that streams are never buffered.

Outermost first: the request's id and its one log line, the last catch for a fault of our own, HTTP's own rules (HEAD, the
absolute form, framing), the check of Host and Origin, a slot among the requests that are worked on, the body's bounds.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from structlog.contextvars import bound_contextvars

from app import ids, logs
from app.api import problems
from app.api.admission import Admission, Slot
from app.api.receiving import Body, BodyBudgets
from app.errors import Problem
from app.settings import settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logs.get(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_ABSOLUTE = re.compile(rb"https?://([^/]*)(/?.*)", re.IGNORECASE)
# Answers are data: no browser shall run, frame or embed them. The pages of /docs say for themselves what they need.
_SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
_QUIET = ("/healthz", "/readyz", "/docs/")


class RequestMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, admission: Admission, receiving: BodyBudgets) -> None:
        self.app, self._admission, self._receiving = app, admission, receiving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # A copy: the server frames its answer by the request that it read.
        scope = {**scope, "state": {**scope.get("state", {})}}
        is_head = scope["method"] == "HEAD"
        request_id = scope["state"]["request_id"] = _request_id(Headers(scope=scope))
        status, started = 0, time.monotonic()
        slot: Slot | None = None
        body: Body | None = None

        async def send_named(message: Message) -> None:
            nonlocal status
            if status and is_head:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                if slot:  # a stream, or a slow client, may take its time from now on
                    slot.leave()
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = request_id
                for name, value in _SECURITY.items():
                    answer.setdefault(name, value)
            await send(message)
            if is_head:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        with bound_contextvars(request_id=request_id):
            try:
                headers = _origin_form(scope)
                _check_framing(headers)
                _check_host(headers)
                if is_head:
                    scope["method"] = "GET"
                slot = self._admission.admit(scope)
                body = self._receiving.body(scope, headers)
                await self.app(scope, body.received(_unhurried(slot, receive), lambda: bool(status)), send_named)
            except ClientDisconnect:
                log.info("the client went away in the middle of its request")
            except Exception as error:
                problem = problems.of(error)
                # An answer that has begun cannot be taken back: leaving it unfinished makes the server cut it off.
                if not status:
                    await problems.respond(problem, request_id)(scope, receive, send_named)
            finally:
                if slot:
                    slot.leave()
                if body:
                    body.leave()
                seconds = round(time.monotonic() - started, 4)
                level = log.debug if scope["path"].startswith(_QUIET) else log.info
                # As it came, still percent-encoded: a path may hold codes that a terminal would obey.
                path = scope.get("raw_path", b"").decode("latin-1")[:500]
                method = "HEAD" if is_head else scope["method"]
                level("request", method=method, path=path, status=status, seconds=seconds)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else ids.new("req")


def _origin_form(scope: Scope) -> Headers:
    """The headers. A target in the absolute form (`GET http://host/path`) becomes a path, and its host the Host header (RFC 9112 3.2.2)."""
    if match := _ABSOLUTE.fullmatch(scope.get("raw_path", b"")):
        host, path = match[1], match[2] or b"/"
        scope["raw_path"], scope["path"] = path, unquote(path.decode("ascii"))
        scope["headers"] = [(b"host", host), *(header for header in scope["headers"] if header[0] != b"host")]
    return Headers(scope=scope)


def _check_framing(headers: Headers) -> None:
    """Refuses a body whose length is said in two ways: a proxy before us may have believed the other (RFC 9112 6.3)."""
    if "transfer-encoding" in headers and "content-length" in headers:
        raise Problem(
            "malformed_body",
            "Content-Length and Transfer-Encoding exclude each other: send one of them.",
            headers={"connection": "close"},
        )


def _check_host(headers: Headers) -> None:
    """Refuses names that a browser was tricked into (DNS rebinding) and pages of other origins."""
    host = headers.get("host", "").lower()
    allowed = settings().allowed_hosts
    if "*" not in allowed and _without_port(host) not in {name.lower() for name in allowed}:
        raise Problem(
            "host_not_allowed",
            "The Host header names a host that this service does not serve; see BEQUEST_ALLOWED_HOSTS.",
        )
    origin = headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != host:
        raise Problem("origin_not_allowed", "The Origin header names another site than the Host header.")


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host)


def _unhurried(slot: Slot, receive: Receive) -> Receive:
    """`receive`, not counted while it waits, so that nobody fills the service by sending slowly."""

    async def unhurried() -> Message:
        with slot.aside():
            return await receive()

    return unhurried
