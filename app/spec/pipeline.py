"""Several jobs in one body. Each is a step, and may name the model of another step where it could name a kept one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from app.spec.base import FREE_WORDS, Label, SpecModel
from app.spec.faults import Fault, Invalid, nearest, pointer

PREFIX = "step:"
"""`step:NAME` in a step stands for `job:ID` of the job that the step NAME becomes, `step:NAME/ROLE` for `job:ID/ROLE`."""

MOST_STEPS = 20

StepName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class PipelineSpec(SpecModel):
    """What is submitted at once: the bodies of jobs, by name, in any order."""

    name: Label | None = None
    steps: Annotated[dict[StepName, dict[str, Any]], Field(min_length=1, max_length=MOST_STEPS)] = Field(
        description="a job's body each; `step:NAME` in it is the model of the step NAME, where `job:ID` may stand"
    )


def references(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(its place as a pointer, the step's name) of each reference in a step."""
    for field, value in spec.items():
        if field not in FREE_WORDS:
            for place, text in _texts(value, (field,)):
                yield pointer(*place), _parts(text)[0]


def with_jobs(spec: Mapping[str, Any], jobs: Mapping[str, str]) -> dict[str, Any]:
    """The body of a step's job: `jobs` has the ids of the steps that it refers to. KeyError where one is missing."""
    return {field: value if field in FREE_WORDS else _put(value, jobs) for field, value in spec.items()}


def needs(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The steps that each step refers to, in the order of their names.

    Raises:
        Invalid: one refers to a step that there is none of, or steps wait for each other.
    """
    found, faults = dict[str, list[str]](), list[Fault]()
    for name, spec in steps.items():
        named = list(references(spec))
        found[name] = sorted({step for _, step in named if step in steps})
        faults += [
            Fault(
                pointer("steps", name) + place,
                "there is no step of this name",
                nearest(step, steps, "steps"),
                "unknown_name",
            )
            for place, step in named
            if step not in steps
        ]
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        circle = error.args[1]
        faults += [
            Fault(
                pointer("steps", name),
                f"steps wait for each other: {', '.join(sorted(set(circle)))}",
                "refer in one direction only, from a later step to an earlier one",
                "circle",
            )
            for name in steps
            if name in circle
        ]
    if faults:
        raise Invalid(faults)
    return found


def _texts(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The references in a value, each with its place."""
    match value:
        case str() if value.startswith(PREFIX):
            yield place, value
        case dict():
            for key, inner in value.items():
                yield from _texts(inner, (*place, key))
        case list():
            for index, inner in enumerate(value):
                if isinstance(inner, (str, dict, list)):
                    yield from _texts(inner, (*place, index))


def _put(value: Any, jobs: Mapping[str, str]) -> Any:
    match value:
        case str() if value.startswith(PREFIX):
            step, role = _parts(value)
            return f"job:{jobs[step]}{role}"
        case dict():
            return {key: _put(inner, jobs) for key, inner in value.items()}
        case list():
            return [_put(inner, jobs) for inner in value]
    return value


def _parts(text: str) -> tuple[str, str]:
    """`step:big/source` is ("big", "/source"), `step:big` is ("big", "")."""
    step, slash, role = text.removeprefix(PREFIX).partition("/")
    return step, slash + role
