"""Reads request bodies strictly: NaN, doubled keys and lone surrogates, which `json.loads` lets through, are refused.

Every fault is found in one pass and named by its pointer; the text of the body never goes into an answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.requests import Request

from app.api.threads import apart
from app.errors import Problem, refused
from app.spec.faults import MOST, Fault, nearest, pointer

MAX_DEPTH = 32
LONGEST_KEY = (
    256  # a fault's pointer repeats the keys above it, and an answer a hundred pointers; no name is half as long
)
MAX_CONTAINERS = 1_000_000  # some 100 bytes each in memory; a picture needs at most one a pixel
INTEGERS = range(-(2**63), 2**64)
_LONG_NUMBER = re.compile("[0-9]{19}")
_SMALL = 256 * 1024
_TAKEN = frozenset({int, bool, type(None)})  # `_integer` has seen to what does not fit
_NUMBERS = frozenset({int, float})


@dataclass(frozen=True)
class Body:
    """A decoded body, and its faults: values that JSON's grammar allows but this service cannot take.

    In place of such a value, `value` holds None, so that the rest can still be checked.
    """

    value: Any
    faults: list[Fault]


async def json_body(request: Request) -> Body:
    """The JSON body of a request: a dependency of the paths that take one.

    Raises:
        Problem: 415 for another content type or encoding, 413 (from the middleware) beyond the limit, 400 for a body
            that is not JSON at all.
    """
    _expect(request, "application/json", "curl: use --json, or add -H 'content-type: application/json' before -d")
    raw = await request.body()
    if len(raw) <= _SMALL:
        return parse(raw)
    # Megabytes take seconds.
    return await apart("large bodies", parse, raw)


async def object_body(request: Request) -> dict[str, Any]:
    """A JSON body that must be an object free of faults."""
    body = await json_body(request)
    if body.faults:
        raise refused(body.faults, code="malformed_body")
    return as_object(body.value)


async def optional_object_body(request: Request) -> dict[str, Any]:
    """As `object_body`, for paths where a body may be left out: then {}."""
    if not await request.body():
        return {}
    return await object_body(request)


def unknown_fields(body: dict[str, Any], fields: Collection[str]) -> list[Fault]:
    """A fault for each field of a body that has no meaning, up to `MOST`."""
    strange = [name for name in body if name not in fields][:MOST]
    return [Fault(pointer(name), "unknown field", nearest(name, fields, "fields"), "unknown_field") for name in strange]


def as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused([Fault("", "expected a JSON object", "the body starts with { and ends with }", "type")])
    return value


def expect_multipart(request: Request) -> None:
    """Raises 415 unless the body is a multipart form, in UTF-8: a client does not choose the codec that reads its names."""
    _expect(request, "multipart/form-data", "curl: use -F file=@NAME")
    # Parsed as the form's own reader parses it, which takes the last of a doubled parameter.
    _, parameters = parse_options_header(request.headers["content-type"])
    if parameters.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise Problem(
            "unsupported_media_type",
            "Forms are read as UTF-8.",
            errors=[
                Fault("/header/content-type", "expected no charset but utf-8", "leave charset out", "content_type")
            ],
        )


def form_texts(form: FormData, name: str) -> list[str]:
    """The texts of a field, in order."""
    return [value for value in form.getlist(name) if isinstance(value, str)]


def form_faults(
    form: FormData, texts: Collection[str], repeated: Collection[str] = (), file: str = "file"
) -> list[Fault]:
    """What is wrong with a form of one file, in the field `file`, and the fields `texts`, of which those in `repeated` may stand several
    times."""
    fields = (file, *texts)
    faults = [
        Fault(f"/{name}", "unknown field", nearest(name, fields, "fields"), "unknown_field")
        for name in dict.fromkeys(form)
        if name not in fields
    ]
    faults += [
        Fault(f"/{name}", "this field stands twice", "send it once", "duplicate_key")
        for name in fields
        if name not in repeated and len(form.getlist(name)) > 1
    ]
    faults += [
        Fault(f"/{name}", "expected text, not a file", f"curl: -F {name}=TEXT, or -F '{name}=<FILE'", "text")
        for name in texts
        if any(isinstance(value, UploadFile) for value in form.getlist(name))
    ]
    faults += [
        Fault(f"/{name}", reason, "remove the character", "text")
        for name in texts
        if (reason := next(filter(None, map(complaint, form_texts(form, name))), None))
    ]
    if not isinstance(form.get(file), UploadFile):
        faults.append(Fault(f"/{file}", "expected a file", f"curl: -F {file}=@NAME", "missing"))
    return faults


def parse(raw: bytes) -> Body:
    """`raw` as JSON, strictly."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is not UTF-8", "send the body as UTF-8") from None
    if not text.strip():
        raise _malformed("the body is empty", "send a JSON object")
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise _malformed(f"it holds more than {MAX_CONTAINERS:,} lists and objects", "send fewer rows at a time")
    # A call for each number would take most of the time, and a picture has thousands that are short.
    integer = _integer if _LONG_NUMBER.search(text) else None
    try:
        tree = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_BadNumber.constant, parse_int=integer)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _malformed(
            f"not JSON: {_reason(error)} at {where}", "check the quotes, commas and brackets there"
        ) from None
    except RecursionError:
        raise _malformed(f"nested deeper than {MAX_DEPTH} levels", "flatten the body") from None
    faults: list[Fault] = []
    value = _walk(tree, [], faults)
    return Body(value, faults)


class _Pairs(list[tuple[str, Any]]):
    """An object's members as they stand in the text: doubled keys are still there."""


@dataclass(frozen=True)
class _BadNumber:
    """Stands in the tree for a value that cannot be taken."""

    message: str
    hint: str

    @staticmethod
    def constant(_name: str) -> _BadNumber:
        return _BadNumber("NaN and Infinity are not JSON", "give a finite number, or null")


def _integer(digits: str) -> int | _BadNumber:
    # 20 digits hold every 64-bit integer; int() of a very long text takes quadratic time.
    if len(digits) <= 21 and int(digits) in INTEGERS:
        return int(digits)
    return _BadNumber("this integer does not fit 64 bits", "give a smaller number")


def _walk(node: Any, path: list[str | int], faults: list[Fault]) -> Any:
    """`node` with None for every value that cannot be taken. Lists are changed in place: a picture has a million numbers.

    `path` leads to `node`, and is the same list again afterwards.
    """
    kind = type(node)
    if kind in _TAKEN or (kind is float and math.isfinite(node)):
        return node
    if kind is list or kind is _Pairs:
        if len(path) < MAX_DEPTH:
            return _list(node, path, faults) if kind is list else _object(node, path, faults)
        _note(faults, path, f"nested deeper than {MAX_DEPTH} levels", "flatten the body", "too_deep")
    elif kind is _BadNumber:
        _note(faults, path, node.message, node.hint, "number")
    elif kind is float:
        _note(faults, path, "this number is too large for a 64-bit float", "give a finite number", "number")
    elif reason := complaint(node):
        _note(faults, path, reason, "remove the character", "text")
    else:
        return node
    return None


def _note(faults: list[Fault], path: Sequence[str | int], message: str, hint: str, code: str) -> None:
    if len(faults) < MOST:
        faults.append(Fault(pointer(*path), message, hint, code))


def _list(items: list[Any], path: list[str | int], faults: list[Fault]) -> list[Any]:
    if set(map(type, items)) <= _NUMBERS and all(map(math.isfinite, items)):
        return items
    path.append(0)
    for index, item in enumerate(items):
        if type(item) not in _TAKEN:
            path[-1] = index
            items[index] = _walk(item, path, faults)
    path.pop()
    return items


def _object(pairs: _Pairs, path: list[str | int], faults: list[Fault]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, item in pairs:
        if reason := complaint(key) or (
            f"it is longer than {LONGEST_KEY} characters" if len(key) > LONGEST_KEY else None
        ):
            # The key itself cannot be written into a pointer, so the pointer is the object's.
            _note(faults, path, f"a key of this object is unusable: {reason}", "rename it", "text")
            continue
        path.append(key)
        if key in members:
            _note(faults, path, "this key stands twice in the object", "remove one", "duplicate_key")
        members[key] = _walk(item, path, faults)
        path.pop()
    return members


def complaint(text: str) -> str | None:
    """Why neither JSON nor the database can hold this text, or None."""
    if "\x00" in text:
        return "it holds a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "it holds a lone surrogate, half of a character"
    return None


def media_type_of(headers: Headers) -> str:
    """What a body says that it is, without parameters; "" where it says nothing."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _expect(request: Request, media_type: str, hint: str) -> None:
    if media_type_of(request.headers) != media_type:
        raise Problem(
            "unsupported_media_type",
            f"This path takes `content-type: {media_type}`.",
            errors=[Fault("/header/content-type", f"expected {media_type}", hint, "content_type")],
            headers={"accept-post": media_type} if request.method == "POST" else None,
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(
            "unsupported_media_type",
            "Compressed bodies are not taken: send the body as it is, without Content-Encoding.",
            errors=[Fault("/header/content-encoding", "expected none", "send the body uncompressed", "content_type")],
        )


def _reason(error: json.JSONDecodeError) -> str:
    # The decoder's messages are a closed set of our runtime's own words; none repeats the text.
    return error.msg[:1].lower() + error.msg[1:]


def _malformed(message: str, hint: str) -> Problem:
    return Problem(
        "malformed_body", "The body is not JSON that can be read.", errors=[Fault("", message, hint, "json")]
    )
