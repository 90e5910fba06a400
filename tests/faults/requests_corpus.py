"""Bad requests by chance, over every operation of the OpenAPI document: its paths, parameters, bodies, headers and methods.

Nothing is listed by hand that the document names, so an operation that is added is met as well.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_from_bytes

import jsonschema

from tests.faults.requests_line import Request
from tests.faults.requests_values import (
    BYTES,
    CANARY,
    ENCODINGS,
    FIELDS,
    HEADERS,
    JSON,
    LITERALS,
    METHODS,
    TEXTS,
    TYPES,
    VALUES,
    WORD,
)


@dataclass(frozen=True)
class Operation:
    method: str
    path: str  # with {names}
    path_names: tuple[str, ...]
    query_names: tuple[str, ...]
    header_names: tuple[str, ...]
    media_type: str | None  # of its body
    codes: frozenset[str]  # of its refusals, as its responses describe them


class World:
    """What the requests are made from: the document, the catalog, and things that exist."""

    def __init__(self, document: dict[str, Any], catalog: dict[str, Any], ids: dict[str, list[str]], bodies: list[Any]):
        self.ids, self.bodies = ids, bodies
        self.schemas = {
            kind: jsonschema.Draft202012Validator(entry["schema"]) for kind, entry in catalog["kinds"].items()
        }
        self.operations = [
            _operation(method.upper(), path, words)
            for path, item in document["paths"].items()
            for method, words in item.items()
        ]

        self.codes = {(operation.method, operation.path): operation.codes for operation in self.operations}

    @cached_property
    def submit(self) -> Operation:
        return next(one for one in self.operations if (one.method, one.path) == ("POST", "/v1/jobs"))

    @cached_property
    def with_json(self) -> list[Operation]:
        return [operation for operation in self.operations if operation.media_type == "application/json"]


def request(world: World, seed: int, number: int) -> Request:
    """The request of that number: the same for the same seed and the same things that exist."""
    chance = random.Random(f"{seed} {number}")
    families: list[tuple[Callable[[World, random.Random], Request], int]] = [
        (_mutated_spec, 8), (_broken_json, 8), (_other_json, 3), (_form, 3), (_query, 5), (_path, 4), (_header, 5), (_method, 3), (_wire, 3)
    ]  # fmt: skip
    family = chance.choices([family for family, _ in families], [weight for _, weight in families])[0]
    return family(world, chance)


# --- bodies ----------------------------------------------------------------------------------------------------------


def _mutated_spec(world: World, chance: random.Random) -> Request:
    """A sound spec with one to three places changed. What its schema allows by chance is only validated."""
    spec: Any = json.loads(json.dumps(chance.choice(world.bodies)))
    kind = spec["kind"]
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.choice(list(_places(spec)))
        how = chance.choice(["value", "value", "value", "remove", "rename", "add", "wrap"])
        spec = _changed(spec, place, how, chance)
    allowed = isinstance(spec, dict) and spec.get("kind") == kind and world.schemas[kind].is_valid(spec)
    path = "/v1/jobs/validate" if allowed else chance.choice(["/v1/jobs", "/v1/jobs", "/v1/jobs/validate"])
    raw = json.dumps(spec, ensure_ascii=chance.random() < 0.5).encode()
    codes = world.codes["POST", path]
    return Request(f"a spec changed, {kind}", _http("POST", path, JSON, raw), CANARY, harmless=allowed, codes=codes)


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _places(value, (*path, key))


def _changed(spec: Any, place: tuple[Any, ...], how: str, chance: random.Random) -> Any:
    value = copy.deepcopy(chance.choice(VALUES))
    if not place:
        return (
            {**spec, "unknown field": value}
            if how == "add" and isinstance(spec, dict)
            else [spec]
            if how == "wrap"
            else value
        )
    here = spec
    for part in place[:-1]:
        here = here[part]
    last = place[-1]
    match how:
        case "remove":
            del here[last]
        case "rename" if isinstance(here, dict):
            here[chance.choice([str(last).upper(), f"{last} ", "", "__proto__", str(last)[:-1] or "x"])] = here.pop(
                last
            )
        case "add" if isinstance(here[last], dict):
            here[last][chance.choice(["unknown", "", "/~", "☃"])] = value
        case "wrap":
            here[last] = chance.choice([[here[last]], {"value": here[last]}, str(here[last])])
        case _:
            here[last] = value
    return spec


def _broken_json(world: World, chance: random.Random) -> Request:
    """A sound body, made into what is not JSON, or into JSON that no service should take."""
    operation = chance.choice(world.with_json)
    sound: bytes = json.dumps(chance.choice(world.bodies)).encode()
    how = chance.choice(
        ["literal"] * 6 + ["cut", "byte", "noise", "encoding", "twice", "empty", "deep", "long", "tail"]
    )
    match how:
        case "literal":
            raw = sound[:-1] + b', "name": ' + chance.choice(LITERALS).encode("utf-8") + b"}"
        case "cut":
            raw = sound[: chance.randrange(len(sound))]
        case "byte":
            at = chance.randrange(len(sound))
            raw = sound[:at] + bytes([chance.choice([0xFF, 0xC0, 0x80, 0xED, 0x00, 0x01])]) + sound[at + 1 :]
        case "noise":
            raw = b"\xff" + chance.randbytes(chance.randrange(2000))
        case "encoding":
            raw = sound.decode().encode(chance.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"]))
            raw = raw if raw != sound else b"\xff\xfe" + raw
        case "twice":
            raw = sound + sound
        case "empty":
            raw = chance.choice([b" ", b"\n", b"\x00"])
        case "deep":
            raw = chance.choice([b"[", b'{"a":']) * chance.randrange(33, 40_000)
        case "long":
            raw = b'{"kind": "' + CANARY * 9000 + b'"'
        case _:
            raw = sound + chance.choice([b"x", b"}", b",", b"\x00", b"//", b";"])
    path = _sound_path(world, operation, chance)
    return Request(f"JSON broken, {how}", _http(operation.method, path, JSON, raw), CANARY, codes=operation.codes)


def _other_json(world: World, chance: random.Random) -> Request:
    """JSON that is none of this operation's: another type, an unknown field, another content type or encoding."""
    operation = chance.choice(world.with_json)
    path, headers = _sound_path(world, operation, chance), list(JSON)
    how = chance.choice(["type", "field", "field", "content type", "encoding", "key"])
    body: Any = chance.choice(world.bodies)
    match how:
        case "type":
            body = chance.choice([value for value in VALUES if not isinstance(value, dict)])
        case "field":
            body = {"unknown": chance.choice(VALUES), "discard": chance.choice(VALUES), "inputs": chance.choice(VALUES)}
        case "content type":
            headers = [("content-type", chance.choice(TYPES))]
        case "encoding":
            headers.append(("content-encoding", chance.choice(ENCODINGS)))
        case _:
            operation, path = world.submit, "/v1/jobs"
            headers += [("idempotency-key", chance.choice(["", "a b", "\xff", "k" * 256, "a\x80"]))]
            headers += chance.choice([[], [("idempotency-key", "twice"), ("idempotency-key", "twice")]])
    raw = json.dumps(body).encode()
    return Request(f"JSON of another kind, {how}", _http("POST", path, headers, raw), CANARY, codes=operation.codes)


FILENAMES = [
    "",
    "; filename=a.csv",
    '; filename="../../x"',
    "; filename*=UTF-8''%00%ff",
    '; filename="a\x00"',
    '; filename="' + "x" * 2000 + '"',
]

BOUNDARIES = [
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=y",
    "multipart/form-data; boundary=" + "x" * 300,
    "multipart/form-data; boundary=\xff",
]

CODECS = [
    "undefined",
    "idna",
    "punycode",
    "utf-16",
    "unicode_escape",
    "zlib",
    "rot13",
    "utf-7",
    "\xff",
    "x" * 300,
]


def _form(world: World, chance: random.Random) -> Request:
    """An upload whose form is wrong. Its file is empty: what files can hold is `hostile_files.py`'s concern."""
    how = chance.choice(["part", "part", "part", "field", "cut", "boundary", "charset", "many", "noise", "not a form"])
    name = chance.choice(["file", "name", "targets", "format", "fil", "", "file[]", "☃", "x" * 3000, "a\x00b"])
    filename = chance.choice(FILENAMES)
    content = chance.choice([b"", b"\x00", CANARY, b"\xff" * 50, b"x" * 20_000, b"\r\n--x"])
    part = f'--x\r\ncontent-disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + content + b"\r\n"
    empty = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n\r\n'
    media_type, raw = "multipart/form-data; boundary=x", part + empty + b"--x--\r\n"
    match how:
        case "field":
            # A sound file, and a field that makes it refused all the same.
            field, text = chance.choice(FIELDS)
            raw = empty[:-2] + b"a,y\r\n1,0\r\n2,1\r\n--x\r\n"
            raw += f'content-disposition: form-data; name="{field}"\r\n\r\n{text}\r\n--x--\r\n'.encode()
        case "cut":
            raw = raw[: chance.randrange(len(raw))]
        case "boundary":
            media_type = chance.choice(BOUNDARIES)
        case "charset":
            codec = chance.choice(CODECS)
            media_type += f"; charset={codec}"
        case "many":
            raw = part * 70 + raw
        case "noise":
            raw = chance.randbytes(3000)
        case "not a form":
            media_type, raw = (
                chance.choice(["multipart/mixed; boundary=x", "application/json", "text/csv"]),
                b"a,b\n1,2\n",
            )
    codes = world.codes["POST", "/v1/datasets"]
    return Request(
        f"a form, {how}", _http("POST", "/v1/datasets", [("content-type", media_type)], raw), CANARY, codes=codes
    )


# --- paths, parameters, headers, methods -----------------------------------------------------------------------------


def _query(world: World, chance: random.Random) -> Request:
    operation = chance.choice(world.operations)
    names = [*operation.query_names, "unknown", "", "limit[]", "__proto__", WORD[:0] + "☃"]
    pairs = [(chance.choice(names), chance.choice(TEXTS)) for _ in range(chance.choice([1, 1, 2, 5, 400]))]
    if operation.method != "GET":
        pairs.append(("no_such_parameter", "1"))
    if any(name == "follow" for name, _ in pairs):
        pairs = [("unknown", "1")]  # a log that is followed is a stream, not an answer
    query = "&".join(f"{quote(name)}={_ascii(text)}" for name, text in pairs)
    raw = _http(operation.method, f"{_sound_path(world, operation, chance)}?{query}"[:60_000])
    return Request("a query", raw, CANARY, harmless=operation.method == "GET", codes=operation.codes)


def _path(world: World, chance: random.Random) -> Request:
    """An id that is none, or a path that is nearly one."""
    operation = chance.choice([operation for operation in world.operations if operation.path_names])
    path = operation.path
    for name in operation.path_names:
        path = path.replace(f"{{{name}}}", _ascii(chance.choice(TEXTS)) or "none")
    how = chance.choice(["id", "id", "id", "slashes", "case", "dots", "files", "long"])
    match how:
        case "slashes":
            path = path.replace("/", chance.choice(["//", "/%2f", "\\", "/./"])) + chance.choice(["", "/", "//"])
        case "case":
            path = path.upper()
        case "dots":
            path = chance.choice(
                [
                    "/v1/../../etc/passwd",
                    "/..",
                    "/%2e%2e/%2e%2e/x",
                    "/v1/%2e%2e/jobs",
                    "v1/jobs",
                    "http://evil.example/v1/jobs",
                    "*",
                ]
            )
        case "files":
            path = chance.choice(["/docs/files/", "/problems/", "/openapi.json/", "/docs/"]) + _ascii(
                chance.choice(TEXTS)
            )
        case "long":
            path = path + "/" + "x" * 20_000
    method = operation.method if how == "id" else "GET"
    return Request(
        f"a path, {how}",
        _http(method, path, JSON, b"{}" if method == "POST" else b""),
        CANARY,
        harmless=method == "GET",
    )


def _header(world: World, chance: random.Random) -> Request:
    operation = chance.choice([operation for operation in world.operations if operation.method == "GET"])
    own = operation.header_names or HEADERS
    names = [chance.choice(HEADERS if chance.random() < 0.5 else own) for _ in range(chance.choice([1, 1, 2, 4]))]
    headers = [(name, chance.choice(BYTES).decode("latin-1")) for name in names]
    # A decent X-Request-ID comes back: that is what it is for.
    headers = [(name, value) for name, value in headers if name != "x-request-id" or WORD not in value]
    if chance.random() < 0.05:
        headers += [(f"x-{number}", "y") for number in range(900)]
    path = _sound_path(world, operation, chance)
    # Blanks around a value are no part of it, so an Upgrade or Expect that HTTP itself forbids may be refused by the server.
    return Request("a header", _http("GET", path, headers), CANARY, harmless=True, http=False, codes=operation.codes)


def _method(world: World, chance: random.Random) -> Request:
    operation = chance.choice(world.operations)
    taken = {other.method for other in world.operations if other.path == operation.path}
    method = chance.choice([method for method in METHODS if method not in taken])
    return Request("a method", _http(method, _sound_path(world, operation, chance)), harmless=method == "HEAD")


# --- what is hardly HTTP ---------------------------------------------------------------------------------------------


def _wire(world: World, chance: random.Random) -> Request:
    """Lies about lengths, broken chunks, broken heads, other protocols."""
    body = json.dumps(chance.choice(world.bodies)).encode()
    head = b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    chunked = head + b"transfer-encoding: chunked\r\n\r\n"
    sound = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    cases: dict[str, bytes] = {
        "a chunk of no size": chunked + b"zz\r\n" + sound,
        "a negative chunk": chunked + b"-5\r\n" + sound,
        "a chunk of 2^80": chunked + b"1" + b"0" * 20 + b"\r\n" + body,
        "a chunk that is longer": chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - 3, body),
        "a broken body in chunks": chunked + b"".join(b"1\r\n%c\r\n" % byte for byte in body[:-1]) + b"0\r\n\r\n",
        "chunks and a length": head + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + b"0\r\n\r\n",
        "another transfer encoding": head + b"transfer-encoding: gzip\r\n\r\n" + sound,
        "two transfer encodings": head + b"transfer-encoding: chunked, chunked\r\n\r\n" + sound,
        "two lengths": head + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + body,
        "a signed length": head + b"content-length: +5\r\n\r\n" + body,
        "a negative length": head + b"content-length: -1\r\n\r\n" + body,
        "no length": head + b"content-length: abc\r\n\r\n" + body,
        "a length of 400 digits": head + b"content-length: " + b"9" * 400 + b"\r\n\r\n" + body,
        "a length beyond the limit": head + b"content-length: 99999999999\r\n\r\n" + body,
        "a shorter length": head + b"content-length: %d\r\n\r\n" % (len(body) // 2) + body,
        "no body": head + b"content-length: 0\r\n\r\n",
        "no host": b"POST /v1/jobs HTTP/1.1\r\nconnection: close\r\n\r\n",
        "two hosts": b"GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "a header without a colon": head + b"broken header\r\n\r\n",
        "a NUL in a header": head + b"x-a: a\x00b\r\n\r\n",
        "a folded header": head + b"x-a: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        "a name with blanks": head + b"content length : 5\r\n\r\n",
        "a head of 100 kB": head + b"x-a: " + b"a" * 100_000 + b"\r\n\r\n",
        "a target with bytes": b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "a target with blanks": b"GET /v1/a b HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "HTTP 9.9": b"PUT /v1/jobs HTTP/9.9\r\nhost: localhost\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(200) + b"\r\n\r\n",
        "noise": chance.randbytes(500).replace(b"\n", b"") + b"\r\n\r\n",
        "no version": b"GET /v1/jobs\r\n\r\n",
    }
    gone = {
        "a longer length": head + b"content-length: %d\r\n\r\n" % (len(body) + 50) + body,
        "half a head": head[: chance.randrange(len(head))],
        "half a chunk": chunked + b"%x\r\n%s" % (len(body) * 2, body),
        "half a form": head.replace(b"jobs", b"datasets").replace(
            b"application/json", b"multipart/form-data; boundary=x"
        )
        + b"content-length: 900\r\n\r\n--x\r\n",
    }
    what = chance.choice([*cases, *gone])
    return Request(f"the wire, {what}", {**cases, **gone}[what], http=False, heard=what in cases)


# --- putting them together -------------------------------------------------------------------------------------------


def _operation(method: str, path: str, words: dict[str, Any]) -> Operation:
    parameters = words.get("parameters", [])
    body = words.get("requestBody", {})
    return Operation(
        method,
        path,
        tuple(one["name"] for one in parameters if one["in"] == "path"),
        tuple(one["name"] for one in parameters if one["in"] == "query"),
        tuple(one["name"] for one in parameters if one["in"] == "header"),
        next(iter(body.get("content", {})), None),
        frozenset(
            code for answer in words["responses"].values() for code in re.findall(r"`(\w+)`: ", answer["description"])
        ),
    )


def _sound_path(world: World, operation: Operation, chance: random.Random) -> str:
    """The operation's path with ids of things that exist."""
    path = operation.path
    for name in operation.path_names:
        path = path.replace(f"{{{name}}}", chance.choice(world.ids[name]))
    return path


def _ascii(text: str) -> str:
    """Percent-encoded as far as HTTP needs it: what is already encoded, well or badly, stays."""
    return quote_from_bytes(text.encode(), safe="%/*'=${}[]")


def _http(method: str, target: str, headers: list[tuple[str, str]] | None = None, body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    given = headers or []
    names = {name for name, _ in given}
    if "host" not in names:
        lines.append("host: localhost")
    lines += ["connection: close", *(f"{name}: {value}" for name, value in given)]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
