"""The factors of labels and objectives in a step: functions of the step alone, so a resumed run needs no state for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.spec.registry import module_of
from worker.training.objectives import factor

if TYPE_CHECKING:
    from app.spec.base import SpecModel

WeightSchedule = Literal["constant", "linear_anneal"]


def label_share(epoch: int, epochs: int) -> float:
    """Teacher annealing (BAM; Clark et al. 2019, section 3.2): from 0 in the first epoch to 1 in the last; 1 where there is one."""
    return min(1.0, epoch / (epochs - 1)) if epochs > 1 else 1.0


class Factors:
    """The entries `TASK/label_factor` and `TASK/factor/NUMBER` of a batch: `linear_anneal` and the objectives' own warm-ups."""

    def __init__(
        self, task: str, objectives: Sequence[SpecModel], schedule: WeightSchedule, steps: int, epoch_steps: int
    ):
        self._task, self._objectives, self._schedule = task, list(objectives), schedule
        self._epoch_steps, self._epochs = epoch_steps, max(1, -(-steps // epoch_steps))

    @property
    def silent(self) -> bool:
        """Whether no step learns from the teachers: annealing over a single epoch begins where it ends, on labels alone."""
        return self._schedule == "linear_anneal" and self._epochs == 1

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        epoch = min(step // self._epoch_steps, self._epochs - 1)
        labels = label_share(epoch, self._epochs) if self._schedule == "linear_anneal" else 1.0
        teachers = 1.0 - labels if self._schedule == "linear_anneal" else 1.0
        factors = {f"{self._task}/label_factor": np.float32(labels)}
        for number, objective in enumerate(self._objectives):
            own = factor(module_of("objectives", objective), objective, epoch, self._epochs)
            factors[f"{self._task}/factor/{number}"] = np.float32(teachers * own)
        return {name: np.asarray(value) for name, value in factors.items()}
