"""The loss that a fit minimises, as a value that methods make and the learner reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.spec.base import SpecModel
    from worker.training.tasks.heads import Task


@dataclass(frozen=True)
class LossSpec:
    """The loss of a step, as plain data.

    `tasks_by_dataset`: which tasks each data set's batch trains. `weighting`: how the losses of several tasks become one (None:
    their sum, or there is but one), `task_weights` for weightings that use them. `objectives`: of each task; a batch holds its
    teachers' logits under `TASK/teacher/0`, `TASK/teacher/1` …; `teachers`: the teachers' weights. `label_weight` multiplies the label
    loss of a task with teachers, or of all where there is no weighting. `regularizer`: for a trunk that came from a source.
    `logit_standardization`: objectives see z-scores of logits. Factors that change from epoch to epoch are numbers in the batch:
    `TASK/label_factor` (of the task's label loss) and `TASK/factor/0`, `TASK/factor/1` … (of its objectives). `widths`: of the
    teachers' layers onto which an objective of a task projects.
    """

    tasks_by_dataset: Mapping[str, Sequence[str]]
    tasks: Mapping[str, Task]
    weighting: SpecModel | None = None
    task_weights: Mapping[str, float] = field(default_factory=dict)
    objectives: Mapping[str, Sequence[SpecModel]] = field(default_factory=dict)
    teachers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    label_weight: float = 1.0
    regularizer: SpecModel | None = None
    logit_standardization: bool = False
    widths: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def key(self) -> str:
        """Equal keys compute the same losses. Units of regression targets are no part of it: losses see standardised numbers."""
        parts = [
            {name: list(tasks) for name, tasks in self.tasks_by_dataset.items()},
            {name: [task.type, task.units] for name, task in self.tasks.items()},
            self.weighting and self.weighting.model_dump(),
            dict(self.task_weights),
            {
                name: [objective.model_dump() for objective in objectives]
                for name, objectives in self.objectives.items()
            },
            {name: list(weights) for name, weights in self.teachers.items()},
            self.label_weight,
            self.regularizer and self.regularizer.model_dump(),
            self.logit_standardization,
            {name: dict(widths) for name, widths in self.widths.items()},
        ]
        return json.dumps(parts)
