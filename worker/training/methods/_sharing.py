"""A multi-task job's sharing, resolved: its fields, wherever they stand, and fields that do not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from app.spec import tasks
from app.spec.faults import Invalid, validate
from app.spec.registry import module_of, name_of
from worker.training import sharing

if TYPE_CHECKING:
    from app.spec.base import SpecModel
    from app.spec.trace import Trace
    from app.spec.variants import Unfit
    from worker.training.methods._resolve import Faults
    from worker.training.sharing import Graph
    from worker.training.tasks.heads import Task

Short = Mapping[str, int | None]
"""The sharing's fields that may stand in the job itself; None where they do not."""


def resolved(
    asked: SpecModel | Unfit,
    short: Short,
    names: Iterable[str],
    made: Mapping[str, Task],
    trace: Trace | None,
    faults: Faults,
) -> tuple[SpecModel | None, Graph | None]:
    """The sharing with every default, and the layers that it makes of the trunk; None where something is wrong."""
    given = faults.fitting(asked, "/sharing")
    if given is None:
        return None, None
    try:
        spec = _joined(given, short, faults)
        if trace is None:
            return spec, None
        on_map = [name for name, task in made.items() if tasks.on_map(task.type)] if trace.map else []
        graph = sharing.graph(spec, trace, names, on_map)
    except Invalid as invalid:
        for fault in invalid.faults:
            faults.add(_place(given, short, fault.pointer), fault.message, fault.hint, fault.code)
        return given, None
    if len(graph.nodes) > sharing.MOST_LAYERS:
        message = f"{len(graph.nodes):,} layers before the heads are more than the {sharing.MOST_LAYERS:,} allowed"
        faults.add("/sharing", message, "take fewer experts, or a trunk of fewer layers", "model_too_large")
    return spec, graph


def check_weighting(spec: SpecModel, graph: Graph | None, faults: Faults) -> None:
    """Gradients are compared on the layers that the tasks share: there must be some."""
    name = name_of("weighting", spec)
    if graph is None or module_of("weighting", spec).Weighting.level != "gradient":
        return
    if not any(node.parameters for node in graph.nodes if node.name in graph.shared):
        faults.add(
            "/weighting/name" if "name" in spec.model_fields_set else "/weighting",
            f"{name} compares the tasks' gradients on what they share, and with this sharing they share nothing",
            "give `experts` 1 or more, or choose a weighting of losses: equal",
        )


def _joined(spec: SpecModel, short: Short, faults: Faults) -> SpecModel:
    """A sharing with its fields from the job itself. Raises Invalid where it has no such fields."""
    besides = {name: value for name, value in short.items() if value is not None}
    if not besides:
        return spec
    given = spec.model_dump(exclude_unset=True)
    for name, value in besides.items():
        if given.setdefault(name, value) != value:
            faults.add(f"/{name}", f"`sharing` says {given[name]}", "leave one of the two out")
    return validate(type(spec), {**given, "name": name_of("sharing", spec)})


def _place(spec: SpecModel, short: Short, pointer: str) -> str:
    """The place in the client's spec that a pointer into the sharing stands for."""
    field = pointer[1:].partition("/")[0]
    if field in spec.model_fields_set:
        return "/sharing" + pointer
    return pointer if short.get(field) is not None else "/sharing"
