"""What a multitask's `resolve` knows of sharings: their words wherever they stand, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from app.spec.base import plain
from app.spec.faults import Invalid, nearest, validate
from app.spec.registry import modules
from worker.training import sharing

if TYPE_CHECKING:
    from app.spec.architectures import Architecture
    from app.spec.data import InputSchema
    from worker.training.methods._resolve import Faults
    from worker.training.sharing import Graph

Given = str | dict[str, Any]
Short = Mapping[str, int | None]
"""The sharing's words that may stand in the job itself; None where they do not."""


def resolved(
    asked: Given, short: Short, tasks: Iterable[str], architecture: Architecture | None, input_: InputSchema | None,
    faults: Faults,
) -> tuple[dict[str, Any], Graph | None]:  # fmt: skip
    """The sharing's words with every default, and the layers that it makes of the trunk; None where something is wrong."""
    given = _words(asked, short, faults)
    known, name = modules("sharing"), given.get("name")
    if not isinstance(name, str) or name not in known:
        hint = nearest(str(name), known, "sharings")
        faults.add(_place(asked, short, "/name"), "expected the name of a sharing", hint, "unknown_name")
        return given, None
    try:
        words = validate(known[name].Spec, given)
        if architecture is None or input_ is None:
            return plain(words), None
        graph = sharing.graph(words, architecture, input_.shape, tasks)
    except Invalid as invalid:
        for fault in invalid.faults:
            faults.add(_place(asked, short, fault.pointer), fault.message, fault.hint, fault.code)
        return given, None
    if len(graph.nodes) > sharing.MOST_LAYERS:
        message = f"{len(graph.nodes):,} layers before the heads are more than the {sharing.MOST_LAYERS:,} allowed"
        faults.add("/sharing", message, "take fewer experts, or a trunk of fewer layers", "model_too_large")
    return plain(words), graph


def check_weighting(level: str, name: str, at: str, graph: Graph | None, faults: Faults) -> None:
    """Gradients are compared on what the tasks share: there must be something."""
    if graph is None or level != "gradient":
        return
    if not any(node.parameters for node in graph.nodes if node.name in graph.shared):
        faults.add(
            at,
            f"{name} compares the tasks' gradients on what they share, and with this sharing they share nothing",
            "give `experts` 1 or more, or choose a weighting of losses: equal",
        )


def _words(asked: Given, short: Short, faults: Faults) -> dict[str, Any]:
    given: dict[str, Any] = {"name": asked} if isinstance(asked, str) else dict(asked)
    for word, value in short.items():
        if value is not None and given.setdefault(word, value) != value:
            faults.add(f"/{word}", f"`sharing` says {given[word]}", "leave one of the two out")
    return given


def _place(asked: Given, short: Short, pointer: str) -> str:
    """Where a client wrote what a pointer into the sharing's words means."""
    word = pointer[1:].partition("/")[0]
    if isinstance(asked, dict) and word in (*asked, "name"):
        return "/sharing" + pointer
    return pointer if short.get(word) is not None else "/sharing"
