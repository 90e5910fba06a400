"""What a multitask's `resolve` knows of sharings: their words wherever they stand, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from app.spec.faults import Invalid, validate
from app.spec.registry import module_of, name_of
from worker.training import sharing

if TYPE_CHECKING:
    from app.spec.base import SpecModel
    from app.spec.trace import Trace
    from app.spec.variants import Unfit
    from worker.training.methods._resolve import Faults
    from worker.training.sharing import Graph

Short = Mapping[str, int | None]
"""The sharing's words that may stand in the job itself; None where they do not."""


def resolved(
    asked: SpecModel | Unfit, short: Short, tasks: Iterable[str], trace: Trace | None, faults: Faults
) -> tuple[SpecModel | None, Graph | None]:
    """The sharing with every default, and the layers that it makes of the trunk; None where something is wrong."""
    given = faults.fitting(asked, "/sharing")
    if given is None:
        return None, None
    try:
        words = _joined(given, short, faults)
        if trace is None:
            return words, None
        graph = sharing.graph(words, trace, tasks)
    except Invalid as invalid:
        for fault in invalid.faults:
            faults.add(_place(given, short, fault.pointer), fault.message, fault.hint, fault.code)
        return given, None
    if len(graph.nodes) > sharing.MOST_LAYERS:
        message = f"{len(graph.nodes):,} layers before the heads are more than the {sharing.MOST_LAYERS:,} allowed"
        faults.add("/sharing", message, "take fewer experts, or a trunk of fewer layers", "model_too_large")
    return words, graph


def check_weighting(words: SpecModel, graph: Graph | None, faults: Faults) -> None:
    """Gradients are compared on what the tasks share: there must be something."""
    name = name_of("weighting", words)
    if graph is None or module_of("weighting", words).Weighting.level != "gradient":
        return
    if not any(node.parameters for node in graph.nodes if node.name in graph.shared):
        faults.add(
            "/weighting/name" if "name" in words.model_fields_set else "/weighting",
            f"{name} compares the tasks' gradients on what they share, and with this sharing they share nothing",
            "give `experts` 1 or more, or choose a weighting of losses: equal",
        )


def _joined(words: SpecModel, short: Short, faults: Faults) -> SpecModel:
    """A sharing with what the job says of it. Raises Invalid where it has no such words."""
    besides = {word: value for word, value in short.items() if value is not None}
    if not besides:
        return words
    given = words.model_dump(exclude_unset=True)
    for word, value in besides.items():
        if given.setdefault(word, value) != value:
            faults.add(f"/{word}", f"`sharing` says {given[word]}", "leave one of the two out")
    return validate(type(words), {**given, "name": name_of("sharing", words)})


def _place(words: SpecModel, short: Short, pointer: str) -> str:
    """Where a client wrote what a pointer into the sharing's words means."""
    word = pointer[1:].partition("/")[0]
    if word in words.model_fields_set:
        return "/sharing" + pointer
    return pointer if short.get(word) is not None else "/sharing"
