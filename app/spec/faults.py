"""The faults in a client's data: all at once, each with a pointer to its place."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from itertools import islice
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from rapidfuzz import fuzz, process

T = TypeVar("T")

MOST = 100
"""The most faults in one answer. The others must cost nothing: a body may hold tens of thousands."""

MOST_COMPARED = 100_000
"""So many names are compared for the hints of one answer. That takes some 30 ms; the faults after it go without a hint."""

LONGEST_NAME = 128
"""So many characters count of a name that is looked for, and of those that it is compared with."""

LEAST_LIKENESS = 65
"""Percent of two names' letters that must stand in both, in the same order, for the one to be meant by the other."""

MOST_LISTED = 20
"""So many names are listed where none is near."""

UNFIT = "unfit"
"""The type of a pydantic error whose context holds `faults` of its own, pointers from its place on."""

LATER = "later"
"""In the context of a validation: variants that fit no module are left for `resolve` to tell of, as `variants.Unfit`."""


@dataclass(frozen=True)
class Nearest:
    """A hint that is made when it is read, by `str`: the nearest of the known names, or a list of them where none is near.

    Until then it costs nothing, so a fault that nobody reads costs nothing. Two of one name and one kind are equal.
    """

    name: str
    names: Collection[str] = field(compare=False, repr=False)
    what: str = ""

    def __str__(self) -> str:
        names = list(islice(self.names, MOST_COMPARED))
        cut = [name[:LONGEST_NAME] for name in names]
        near = process.extractOne(self.name, cut, scorer=fuzz.ratio, score_cutoff=LEAST_LIKENESS)
        if near is not None:
            return f"did you mean {names[near[2]]!r}?"
        shown = ", ".join(nsmallest(MOST_LISTED, names)) or "none"
        return f"known{' ' + self.what if self.what else ''}: {shown}{', …' if len(names) > MOST_LISTED else ''}"


Hint = str | Nearest | None


@dataclass(frozen=True)
class Fault:
    """One thing wrong.

    `pointer` is a JSON pointer (RFC 6901) into what was sent; "" is the whole of it. `message` says what was expected,
    `hint` what to do next. Neither repeats the caller's text beyond the names of fields and data sets.
    """

    pointer: str
    message: str
    hint: Hint = None
    code: str = "invalid"

    def under(self, prefix: str) -> Fault:
        """The same fault, seen from one level further out."""
        return replace(self, pointer=prefix + self.pointer)


class Invalid(Exception):
    """What was sent cannot be accepted; `faults` holds what is wrong with it, in the order of the document, up to `MOST`."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = list(islice(faults, MOST))
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in self.faults)


def written(faults: Iterable[Fault]) -> list[dict[str, str | None]]:
    """The first `MOST` faults as JSON types. Their hints are made here, from at most `MOST_COMPARED` names in all."""
    left, result = MOST_COMPARED, list[dict[str, str | None]]()
    for fault in islice(faults, MOST):
        hint = fault.hint
        if isinstance(hint, Nearest):
            left -= len(hint.names)
            hint = str(hint) if left >= 0 else None
        result.append({"pointer": fault.pointer, "message": fault.message, "hint": hint, "code": fault.code})
    return result


def validate(shape: type[T], body: object, *, later: bool = False) -> T:
    """`body` (decoded JSON) as an instance of `shape`. `later`: what `LATER` says.

    Raises:
        Invalid: with one fault for each error that pydantic found; unknown fields name the nearest known one.
    """
    try:
        return TypeAdapter(shape).validate_python(body, context={LATER: True} if later else None)
    except ValidationError as error:
        raise Invalid(of_validation(error, body, shape)) from None


def of_validation(error: ValidationError, body: object, shape: type[Any]) -> list[Fault]:
    """The faults in a pydantic error about `body`, from the first `MOST` of its errors. Values are never echoed.

    They may hold secrets, or text that no JSON can carry.
    """
    fields = dict(sorted(_field_paths(shape).items()))
    errors = error.errors(include_url=False, include_input=False)[:MOST]
    return _of_unions([fault for details in errors for fault in _faults(details, body, fields)])[:MOST]


def pointer(*parts: str | int) -> str:
    """`pointer("tasks", "digit", "column")` is "/tasks/digit/column"."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def above(place: str) -> Iterator[str]:
    """A pointer and all that it lies inside, the document itself last: `/tasks/digit`, `/tasks`, ``."""
    while place:
        yield place
        place = place.rpartition("/")[0]
    yield ""


def nearest(name: str, names: Collection[str], what: str = "") -> Nearest:
    """A hint that names the nearest of `names`, or lists the first of them where none is near."""
    return Nearest(name[:LONGEST_NAME], names, what)


def _faults(details: ErrorDetails, body: object, fields: Mapping[str, list[str]]) -> list[Fault]:
    place = pointer(*_place(details, body))
    if details["type"] == UNFIT:
        return [fault.under(place) for fault in details["ctx"]["faults"]]
    return [_fault(details, place, fields)]


def _fault(details: ErrorDetails, place: str, fields: Mapping[str, list[str]]) -> Fault:
    kind, context = details["type"], details.get("ctx") or {}
    if kind == "extra_forbidden":
        name = str(details["loc"][-1])
        hint = f"there is {' and '.join(fields[name])}" if name in fields else nearest(name, list(fields), "fields")
        return Fault(place, "unknown field", hint, "unknown_field")
    if kind == "missing":
        return Fault(place, "this field is required", None, "missing")
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
    parents = {place for fault in faults for place in above(fault.pointer.rpartition("/")[0]) if fault.pointer}
    for fault in sorted(faults, key=lambda fault: fault.pointer):
        mismatch = fault.code.endswith("_type") or fault.code in ("literal_error", "string_pattern_mismatch")
        if mismatch and fault.pointer in parents:
            continue
        earlier = kept.get(fault.pointer)
        if earlier is None:
            kept[fault.pointer] = fault
        elif fault.message not in earlier.message:
            kept[fault.pointer] = replace(earlier, message=f"{earlier.message}, or {fault.message}")
    return list(kept.values())


def _field_paths(shape: Any) -> dict[str, list[str]]:
    """{name: the shortest ways to it, as `training.epochs`} of all fields in a shape and in the models that it holds; those of variants
    belong to their modules instead."""
    ahead, seen, found = deque([(shape, "")]), set[type](), dict[str, list[str]]()
    while ahead:
        part, way = ahead.popleft()
        if isinstance(part, type) and issubclass(part, BaseModel):
            if part in seen:
                continue
            seen.add(part)
            for name, field in part.model_fields.items():
                ways = found.setdefault(name, [])
                if not ways or ways[0].count(".") == way.count("."):
                    ways.append(way + name)
                ahead.append((field.annotation, f"{way}{name}."))
        else:
            ahead += [(inner, way) for inner in get_args(part)]
    return found
