"""JSON of strangers: bounded in length, depth and nodes before it is read, and free of what JSON has no words for."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from app.spec.faults import Fault, Invalid

MOST_BYTES = 8 * 2**20
DEEPEST = 128
MOST_NODES = 200_000
LONGEST_NUMBER = 64  # digits

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{},]', re.DOTALL)


def parsed(data: bytes, what: str = "config.json") -> Any:
    """The value.

    Args:
        what: the text's name in messages.

    Raises:
        Invalid: it is none, or too long, too deep or too much.
    """
    if len(data) > MOST_BYTES:
        raise _refused(f"{what} is longer than {MOST_BYTES // 2**20} MiB")
    if fault := _structure_fault(data):
        raise _refused(f"{what} {fault}")
    try:
        return json.loads(data, parse_constant=_no_constant, parse_int=_whole, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _refused(f"{what} is not JSON") from None


def _refused(message: str) -> Invalid:
    return Invalid([Fault("", message, "save the model again with Keras 3", "unreadable")])


def _structure_fault(data: bytes) -> str | None:
    """Whether it is too deep or has too many values. Strings are passed over; what is no JSON is found by the parser."""
    depth = deepest = nodes = 0
    for token in _TOKEN.finditer(data):
        mark = token.group()[:1]
        if mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in b"]}":
            depth -= 1
        nodes += mark in b"[{,"
    if deepest > DEEPEST:
        return f"is nested deeper than {DEEPEST} levels"
    if nodes > MOST_NODES:
        return f"holds more than {MOST_NODES} values"
    return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError("a number of too many digits")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key given twice")
    return value
