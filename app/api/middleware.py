"""What every request passes through, as plain ASGI so that streams are never buffered.

Outermost first: the request's id and its one log line, the last catch for a fault of our own, the check of Host and
Origin, a slot among the requests that are worked on, the count of the body's bytes.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from structlog.contextvars import bound_contextvars

from app import ids, logs
from app.api import problems
from app.api.admission import Admission, Slot
from app.errors import Problem
from app.settings import settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logs.get(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# Boundaries, part headers and the small fields beside the file.
_FORM_OVERHEAD = 64 * 1024
# Answers are data: no browser shall run, frame or embed them. The pages of /docs say for themselves what they need.
_SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
_QUIET = ("/healthz", "/readyz", "/docs/")


class Gate:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        status, started = 0, time.monotonic()
        slot: Slot | None = None

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if slot:  # a stream, or a slow client, may take its time from now on
                    slot.leave()
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = request_id
                for name, value in _SECURITY.items():
                    answer.setdefault(name, value)
            await send(message)

        with bound_contextvars(request_id=request_id):
            try:
                _check_host(headers)
                slot = self._admission.admit(scope)
                await self.app(scope, _counted(scope, headers, _unhurried(slot, receive)), send_named)
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
                seconds = round(time.monotonic() - started, 4)
                level = log.debug if scope["path"].startswith(_QUIET) else log.info
                # As it came, still percent-encoded: a path may hold what a terminal would obey.
                path = scope.get("raw_path", b"").decode("latin-1")[:500]
                level("request", method=scope["method"], path=path, status=status, seconds=seconds)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else ids.new("req")


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
    """`receive`, so that nobody fills the service by sending slowly."""

    async def unhurried() -> Message:
        with slot.aside():
            return await receive()

    return unhurried


def _limit(method: str, path: str) -> tuple[int, str]:
    """How many bytes of body this path takes, and the setting that says so."""
    if method == "POST" and path == "/v1/datasets":
        return settings().max_upload_bytes + _FORM_OVERHEAD, "BEQUEST_MAX_UPLOAD_BYTES"
    if method == "POST" and path.startswith("/v1/models/") and path.endswith("/predict"):
        return settings().max_predict_bytes, "BEQUEST_MAX_PREDICT_BYTES"
    return settings().max_body_bytes, "BEQUEST_MAX_BODY_BYTES"


def _counted(scope: Scope, headers: Headers, receive: Receive) -> Receive:
    """`receive`, ending in a 413 as soon as more bytes came than this path takes, whatever the headers claim."""
    limit, setting = _limit(scope["method"], scope["path"])
    too_large = Problem(
        "body_too_large", f"At most {limit} bytes are taken here ({setting}).", headers={"connection": "close"}
    )
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise too_large
        return message

    return counted
