"""What is wrong with something a client sent: every fault at once, each with a pointer to its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

T = TypeVar("T")

MOST = 100
"""So many faults are said in one answer. What is not said must cost nothing either: a body may hold tens of thousands."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong.

    `pointer` is a JSON pointer (RFC 6901) into what was sent; "" is the whole of it. `message` says what was expected,
    `hint` what to do next. Neither repeats the caller's text beyond the names of fields and data sets.
    """

    pointer: str
    message: str
    hint: str | None = None
    code: str = "invalid"

    def under(self, prefix: str) -> Fault:
        """The same fault, seen from one level further out."""
        return replace(self, pointer=prefix + self.pointer)

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


class Invalid(Exception):
    """What was sent cannot be accepted; `faults` holds all that is wrong with it, in the order of the document."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = list(faults)
        super().__init__("; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in self.faults))


def validate(shape: type[T] | TypeAdapter[T], body: object) -> T:
    """`body` (decoded JSON) as an instance of `shape`.

    Raises:
        Invalid: with one fault for each error that pydantic found; unknown fields name the nearest known one.
    """
    adapter = shape if isinstance(shape, TypeAdapter) else TypeAdapter(shape)
    try:
        return adapter.validate_python(body)
    except ValidationError as error:
        raise Invalid(of_validation(error, body, adapter)) from None


def of_validation(
    error: ValidationError, body: object, shape: TypeAdapter[Any] | type[BaseModel] | None = None
) -> list[Fault]:
    """The faults in a pydantic error about `body`, from the first `MOST` of its errors. Values are never echoed.

    They may hold secrets, or text that no JSON can carry.
    """
    names = _field_names(shape) if shape is not None else []
    found = error.errors(include_url=False, include_input=False)[:MOST]
    return _of_unions([_fault(details, body, names) for details in found])


def pointer(*parts: str | int) -> str:
    """`pointer("tasks", "digit", "column")` is "/tasks/digit/column"."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def nearest(name: str, known: Sequence[str], what: str = "") -> str:
    """A hint that names the nearest of `known`, or lists them all where none is near."""
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    shown = ", ".join(sorted(known)[:20]) or "none"
    return f"known{' ' + what if what else ''}: {shown}{', …' if len(known) > 20 else ''}"


def _fault(details: ErrorDetails, body: object, names: list[str]) -> Fault:
    place = pointer(*_place(details, body))
    kind, context = details["type"], details.get("ctx") or {}
    if kind == "extra_forbidden":
        return Fault(place, "unknown field", nearest(str(details["loc"][-1]), names, "fields"), "unknown_field")
    if kind == "missing":
        return Fault(place, "this field is required", None, "missing")
    if kind == "value_error" and isinstance(context.get("error"), Invalid):
        return cast("Invalid", context["error"]).faults[0].under(place)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = str(context.get("expected_tags", "")).replace("'", "")
        return Fault(
            place, f"expected one of: {expected}" if expected else "expected a known kind", None, "unknown_name"
        )
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return Fault(place, message[:1].lower() + message[1:], None, kind)


def _place(details: ErrorDetails, body: object) -> Iterator[str | int]:
    """The location in `body`.

    Pydantic also names the branch of a union it was trying, which is no place in any document.
    """
    here, last = body, len(details["loc"]) - 1
    for depth, part in enumerate(details["loc"]):
        in_object = isinstance(here, dict) and part in here
        in_array = isinstance(here, (list, tuple)) and isinstance(part, int) and part < len(here)
        if in_object or in_array:
            here = cast("Any", here)[part]
            yield part
        elif depth == last and details["type"] == "missing":
            yield part


def _of_unions(faults: list[Fault]) -> list[Fault]:
    """One fault a place. A value that fits no branch of a union gives an error for each.

    The deepest say most, equals are joined.
    """
    kept: dict[str, Fault] = {}
    for fault in sorted(faults, key=lambda fault: fault.pointer):
        mismatch = fault.code.endswith("_type") or fault.code in ("literal_error", "string_pattern_mismatch")
        if mismatch and any(other.pointer.startswith(fault.pointer + "/") for other in faults):
            continue
        known = kept.get(fault.pointer)
        if known is None:
            kept[fault.pointer] = fault
        elif fault.message not in known.message:
            kept[fault.pointer] = replace(known, message=f"{known.message}, or {fault.message}")
    return list(kept.values())


def _field_names(shape: TypeAdapter[Any] | type[BaseModel]) -> list[str]:
    schema = shape.json_schema() if isinstance(shape, TypeAdapter) else shape.model_json_schema()
    names: set[str] = set()
    for part in (schema, *schema.get("$defs", {}).values()):
        names.update(part.get("properties", {}))
    return sorted(names)
