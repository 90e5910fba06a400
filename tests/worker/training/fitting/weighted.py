"""Two tasks with weights of their own."""

from __future__ import annotations

from typing import Any

from app.spec.registry import modules
from tests.worker.training.small import DIGIT, ODD, SIZE, batch_source, stored
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec
from worker.training.networks.network import Network

TASKS = [DIGIT, ODD, SIZE]


def loss_spec_of(name: str, *tasks: Any, **words: Any) -> LossSpec:
    module = modules("weighting")[name]
    weights = {task.name: 0.5 + k for k, task in enumerate(tasks)} if name == "fixed" else {}
    return LossSpec(
        {"d": [task.name for task in tasks]},
        {task.name: task for task in tasks},
        weighting=module.Spec(**words),
        task_weights=weights,
    )


def fit_spec_of(whole: Network, loss_spec: LossSpec, n: int = 24, batch: int = 6) -> FitSpec:
    columns = {name: stored(task, n) for name, task in loss_spec.tasks.items()}
    columns["digit"][::3] = -1
    return FitSpec(loss_spec, {"d": batch_source(whole, columns, batch)})
