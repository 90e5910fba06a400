"""The kinds of job: parsed, resolved, described. Each is one module, found by its name.

None of them needs Keras to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

import numpy as np

from app import data
from app.data import splits
from app.data.table import HASH_BYTES, Hashes
from app.spec.base import JobSpec
from app.spec.faults import Fault, Invalid, above, nearest, validate
from app.spec.lookup import HeldOut, Inputs, Lookup
from app.spec.registry import modules
from app.spec.variants import left_over


def parse(body: object) -> JobSpec:
    """The spec in a body, with those defaults of its kind that need no look at data. Only `resolve` tells of variants that fit no
    module (`faults.LATER`).

    Raises:
        Invalid: no object, an unknown kind, or a spec that does not fit its kind's schema.
    """
    if not isinstance(body, dict):
        raise Invalid(
            [
                Fault(
                    "",
                    "expected a JSON object with at least `kind`",
                    "GET /v1/catalog has a complete example of each kind",
                )
            ]
        )
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in kinds():
        hint = nearest(kind if isinstance(kind, str) else "", kinds(), "kinds")
        raise Invalid([Fault("/kind", "expected the name of a kind of job", hint, "unknown_name")])
    return cast("JobSpec", validate(kinds()[kind].Spec, body, later=True))


def resolve(spec: JobSpec, lookup: Lookup) -> JobSpec:
    """The same spec with every default in place, checked against the data sets and models that it names.

    Raises:
        Invalid: with all that is wrong.
    """
    resolved: JobSpec = kinds()[spec.kind].resolve(spec, lookup)
    if untold := list(left_over(resolved)):
        raise Invalid(untold)
    return resolved


def check(body: object, lookup: Lookup) -> JobSpec:
    """Parses and resolves a body, so that one answer names all that is wrong with it.

    Where a field does not fit its schema, the rest is still checked against the lookup, as if that field had not been given.

    Raises:
        Invalid: with every fault of both kinds.
    """
    try:
        return _resolved(body, lookup)
    except Invalid as invalid:
        if not isinstance(body, dict):
            raise
        wrong = {fault.pointer for fault in invalid.faults}
        rest = _without(body, wrong)
        if rest is body:
            raise
        try:
            _resolved(rest, lookup)
        except Invalid as more:
            around = {place for pointer in wrong for place in above(pointer)}
            also = [
                fault
                for fault in more.faults
                if fault.pointer not in around
                and wrong.isdisjoint(above(fault.pointer))
                and not _of_absence(fault, wrong)
            ]
            raise Invalid([*invalid.faults, *also]) from None
        raise


def inputs(spec: JobSpec) -> Inputs:
    """The data sets and models that a resolved spec needs."""
    return cast("Inputs", kinds()[spec.kind].inputs(spec))


def test_hashes(spec: JobSpec, entry: Callable[[str], dict[str, Any]]) -> Hashes:
    """(n, 16) uint8: the hashes of the input rows that a resolved spec is examined on.

    `entry` gives a data set's entry in an assignment.
    """
    hashes = [np.empty((0, HASH_BYTES), np.uint8)]
    for held in cast("list[HeldOut]", kinds()[spec.kind].held_out(spec)):
        table = data.load(held.dataset, entry(held.dataset))
        hashes.append(table.hashes[splits.split(table, held.split, held.targets).test])
    return np.concatenate(hashes)


def restore(resolved: dict[str, Any]) -> JobSpec:
    """A spec from what was stored of a resolved one."""
    return cast("JobSpec", validate(kinds()[resolved["kind"]].Spec, resolved))


def kinds() -> dict[str, ModuleType]:
    return modules("methods")


def _resolved(body: object, lookup: Lookup) -> JobSpec:
    """A body, parsed and resolved. A fault in the expansion of a shorthand points at the field that the client wrote."""
    kind = body.get("kind") if isinstance(body, dict) else None
    module = kinds().get(kind) if isinstance(kind, str) else None
    expand = getattr(module, "expand", None)
    if not isinstance(body, dict) or expand is None:
        return resolve(parse(body), lookup)
    try:
        return resolve(parse(expand(body)), lookup)
    except Invalid as invalid:
        shorthands: dict[str, str] = getattr(module, "SHORTHANDS", {})
        written = {meant: f"/{short}" for short, meant in shorthands.items() if short in body}
        raise Invalid(_written(fault, written) for fault in invalid.faults) from None


def _of_absence(fault: Fault, wrong: Collection[str]) -> bool:
    """Whether the fields left out may alone have caused a fault: it lies beside one of them, or misses one's name elsewhere."""
    home, _, name = fault.pointer.rpartition("/")
    left_out = [pointer.rpartition("/") for pointer in wrong]
    return fault.code in ("missing", "unknown_field") and any(
        home == place or (fault.code == "missing" and name == field) for place, _, field in left_out
    )


def _written(fault: Fault, written: dict[str, str]) -> Fault:
    for meant, place in written.items():
        if f"{fault.pointer}/".startswith(f"{meant}/"):
            return replace(fault, pointer=place + fault.pointer.removeprefix(meant))
    return fault


def _without(body: dict[str, Any], pointers: Iterable[str]) -> dict[str, Any]:
    """`body` without the fields at these places. It is not changed, and parts without such a field are not copied. Elements of
    arrays stay: without one, the others would move."""
    rest = body
    for place in pointers:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in place.split("/")[1:]] or [""]
        rest = _dropped(rest, way, last)
    return rest


def _dropped(value: Any, way: Sequence[str], last: str) -> Any:
    """`value` without the field `last` of the object to which `way` leads; `value` itself where there is none."""
    if not isinstance(value, dict):
        return value
    if not way:
        if last not in value:
            return value
        rest = dict(value)
        del rest[last]
        return rest
    inner = value.get(way[0])
    rest = _dropped(inner, way[1:], last)
    return value if rest is inner else {**value, way[0]: rest}
