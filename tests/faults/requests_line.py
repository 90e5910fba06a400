"""One request as bytes over a connection of its own, and whether what comes back is an answer that the service may give."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.errors import PROBLEMS

Connect = Callable[[], socket.socket]
"""Opens a connection to the API, with a timeout."""

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "errors"}
NOT_HTTP = b"Invalid HTTP request received."


@dataclass(frozen=True)
class Request:
    """A request that something is wrong with.

    `what` names the family and the fault. `canary` is a word of the client's that no refusal may repeat. `harmless`: it may also be
    answered as if nothing were wrong (a strange Accept header). `http`: it is HTTP; what is not, the server may refuse itself. `heard`:
    an answer is due; none is to a client that goes away in the middle of its body. `codes` are those that the OpenAPI document names for
    the operation; None where the request meets none.
    """

    what: str
    raw: bytes
    canary: bytes = b""
    harmless: bool = False
    http: bool = True
    heard: bool = True
    codes: frozenset[str] | None = None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def send(connect: Connect, request: Request) -> Answer | None:
    """The whole answer, or None where the connection ended without one."""
    with connect() as line:
        try:
            line.sendall(request.raw)
            if not request.heard:
                return None
        except (BrokenPipeError, ConnectionResetError):
            pass  # the service may answer before it has read everything
        method = "HEAD" if request.raw.startswith(b"HEAD ") else "POST"
        answer = http.client.HTTPResponse(line, method=method)
        try:
            answer.begin()
            body = answer.read()
        except (http.client.HTTPException, OSError):
            return None
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)


def fault_in(request: Request, answer: Answer | None) -> str | None:
    """What is wrong with the answer, or None."""
    if not request.heard:
        return None
    if answer is None:
        return "no answer"
    if answer.status >= 500:
        return f"{answer.status}: {answer.body[:200]!r}"
    if answer.status < 400:
        return None if request.harmless else f"taken with {answer.status}"
    if request.canary and request.canary in answer.body + repr(answer.headers).encode():
        return "the client's text came back"
    if not request.http and answer.status == 400 and answer.body == NOT_HTTP:
        return None
    if answer.headers.get("content-type") != "application/problem+json":
        return f"{answer.status} is no problem+json"
    if request.raw.startswith(b"HEAD "):
        return None
    return _fault_in_problem(request, answer)


def _fault_in_problem(request: Request, answer: Answer) -> str | None:
    body: dict[str, Any] = json.loads(answer.body)
    if set(body) != MEMBERS:
        return f"a problem of {sorted(body)}"
    kind = PROBLEMS.get(body["code"])
    if kind is None or kind.status != answer.status:
        return f"{answer.status} with code {body['code']!r}"
    if request.codes is not None and body["code"] not in request.codes:
        return f"{body['code']} is not documented for this operation"
    if body["request_id"] != answer.headers.get("x-request-id"):
        return "another request_id than the header's"
    return None
