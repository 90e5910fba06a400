"""What the paths share that take the body of a job, or of several."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Header, Request
from starlette.concurrency import run_in_threadpool

from app import db, traces
from app.api.bodies import Body
from app.api.threads import apart
from app.data import builtins
from app.db import Session
from app.errors import Unavailable, refused
from app.spec.faults import Fault, Invalid
from app.traces import Untraced

REFUSALS = ("malformed_body", "unsupported_media_type", "invalid")

REPLAYED: dict[str, Any] = {
    "Idempotent-Replayed": {
        "description": "`true`: what is answered was made by this key before",
        "schema": {"type": "string"},
    }
}

_KEY = r"^[\x21-\x7e]{1,255}$"
_NO_KEY = Fault(
    "/header/idempotency-key",
    "expected one key of 1 to 255 visible ASCII characters",
    "a random UUID, sent again with every retry",
    "idempotency_key",
)
Answer = TypeVar("Answer")


async def idempotency_key(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="idempotency-key",
            description="1 to 255 visible ASCII characters: what is submitted again under the same key is one job",
            json_schema_extra={"pattern": _KEY},
        ),
    ] = None,
) -> str | None:
    """The key of a submission. Raises 422 for an unusable key, or for several."""
    given = request.headers.getlist("idempotency-key")
    if len(given) > 1 or not all(re.fullmatch(_KEY, value) for value in given):
        raise refused([_NO_KEY], code="invalid_parameter")
    return key


async def once_traced(function: Callable[..., Answer], *arguments: object) -> Answer:
    """The result of `function` once every network that it looks at is known. The inference program builds the others,
    while neither a connection to the database is held nor a thread that others wait for."""
    for _ in range(traces.MOST_OF_A_BODY):
        try:
            return await run_in_threadpool(function, *arguments)
        except Untraced as missing:
            await apart("traces", traces.make, missing)
    raise Unavailable("The networks in this body were looked at; ask again.", code="inference_unavailable")


def prepare(body: Body, check: Callable[[Session, Any], object]) -> None:
    """Before the transaction of a submission. Makes the rows of the built-in data sets that a body names: that takes seconds, and a
    transaction in which nothing happens for as long is ended by the database.

    Raises for values that cannot be taken, with all else that is wrong by `check`: one answer names every fault.
    """
    builtins.make(body.value)
    if not body.faults:
        return
    faults = list(body.faults)
    if isinstance(body.value, dict):
        try:
            with db.transaction() as session:
                check(session, body.value)
        except Invalid as invalid:
            places = {fault.pointer for fault in faults}
            faults += [fault for fault in invalid.faults if fault.pointer not in places]
    raise refused(sorted(faults, key=lambda fault: fault.pointer), code="malformed_body")
