"""What several tasks share between the input and their heads: one module a sharing, found by its file's name.

A module has `Spec` (its words, with `name`), `EXAMPLE`, and `graph(plan, tasks, words)`: plain data, no Keras. It adds copies of the
job's trunk to `plan`, a `Plan`, joins them, and answers the name of the layer whose numbers each task's head is given. `tasks` are
sorted by name, so that their order in a job or in a file means nothing. It raises Invalid, pointers from the sharing's own words,
where the words do not fit the trunk or the tasks. `worker/training/networks/build.py` makes stock Keras layers of the same names
from it. The room may import `app.spec`, and no other room.
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
"""Of all copies together: Keras needs about 10 ms to make one, and longer to trace it."""


def graph(spec: SpecModel, trace: Trace, tasks: Iterable[str]) -> Graph:
    """The layers between the input of a trunk and the heads of `tasks`.

    Raises:
        Invalid: the words do not fit the trunk or the tasks.
    """
    plan = Plan(trace)
    features = module_of("sharing", spec).graph(plan, sorted(tasks), spec)
    return Graph(tuple(plan.nodes.values()), features)
