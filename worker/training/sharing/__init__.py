"""How several tasks share layers between the input and their heads: one module for each sharing, found by its file's name.

A module has `Spec` (its fields, with `name`), `EXAMPLE`, and `graph(plan, tasks, spec)`: plain data, no Keras. `graph` adds copies of
the job's trunk to `plan`, a `Plan`, joins them, and returns for each task the name of the layer that feeds its head. `tasks` are sorted
by name, so that their order in a job or in a file means nothing. It raises Invalid, with pointers within the sharing's own spec, where
the spec does not fit the trunk or the tasks. `worker/training/networks/build.py` makes stock Keras layers of the same names from the
graph. The room may import `app.spec`, and no other room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from app.spec.registry import module_of
from app.spec.trace import INPUT
from worker.training.sharing._graph import Graph, Node, Plan

if TYPE_CHECKING:
    from app.spec.base import SpecModel
    from app.spec.trace import Trace

__all__ = ["INPUT", "MOST_LAYERS", "Graph", "Node", "Plan", "graph"]

MOST_LAYERS = 2000
"""Bound on the layers of all copies: Keras needs about 10 ms to make one, and longer to trace it."""


def graph(spec: SpecModel, trace: Trace, tasks: Iterable[str], on_map: Iterable[str] = ()) -> Graph:
    """The layers between the input of a trunk and the heads of `tasks`, of which those of `on_map` stand on the trunk's map.

    Raises:
        Invalid: the spec does not fit the trunk or the tasks.
    """
    plan = Plan(trace)
    features = module_of("sharing", spec).graph(plan, sorted(tasks), spec)
    return Graph(tuple(plan.nodes.values()), features | {task: plan.map_of(features[task]) for task in on_map})
