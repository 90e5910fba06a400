"""Two tasks with weights of their own."""

from __future__ import annotations

from typing import Any

from app.spec.registry import modules
from tests.worker.training.small import DIGIT, ODD, SIZE, feed, stored
from worker.training.fitting.goal import Goal
from worker.training.fitting.plan import Lesson
from worker.training.networks.network import Network

TASKS = [DIGIT, ODD, SIZE]


def goal_of(name: str, *tasks: Any, **words: Any) -> Goal:
    module = modules("weighting")[name]
    weights = {task.name: 0.5 + k for k, task in enumerate(tasks)} if name == "fixed" else {}
    return Goal(
        {"d": [task.name for task in tasks]},
        {task.name: task for task in tasks},
        weighting=module.Spec(**words),
        task_weights=weights,
    )


def lesson_of(whole: Network, goal: Goal, n: int = 24, batch: int = 6) -> Lesson:
    columns = {name: stored(task, n) for name, task in goal.tasks.items()}
    columns["digit"][::3] = -1
    return Lesson(goal, {"d": feed(whole, columns, batch)})
