"""A fit's inputs and its result, as values: phases, a fit spec with its validation rows, a trained network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from worker.training.data import batches

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.training import TrainingSpec
    from worker.training.data.batches import BatchSource
    from worker.training.fitting.loss_spec import LossSpec
    from worker.training.networks.network import Network

Caching = Literal["auto"] | bool


@dataclass(frozen=True)
class Check:
    """One task's validation: raw inputs and stored labels of the validation rows, and the verdict's metric."""

    metric: str
    inputs: Source
    values: np.ndarray


@dataclass(frozen=True)
class Phase:
    """Part of a fit with its own freezing, rate and optimizer. `frozen`: names of layers; `norms`: every BatchNorm is frozen too.

    `factors`: of the rate, by patterns of variable paths (empty: 1 for all). `cache`: of a frozen trunk's features.
    """

    steps: int
    rate: float
    frozen: frozenset[str] = frozenset()
    norms: bool = False
    factors: Mapping[str, float] = field(default_factory=dict)
    cache: Caching = False


def phase(steps: int, rate: float | None, frozen: Iterable[str] = (), norms: bool = False, **more: Any) -> Phase:
    """A phase at the rate of a resolved spec, which has one. `more`: as in Phase."""
    assert rate is not None
    return Phase(steps, rate, frozenset(frozen), norms, **more)


def doubts(phases: Iterable[Phase], training: TrainingSpec, epoch_steps: int) -> dict[str, str]:
    """What a phase is too short for, by codes of warnings: how many steps an epoch has is known only with the rows."""
    shortest = min((phase.steps for phase in phases if phase.steps), default=0)
    warm_up, every = round(training.warmup_epochs * epoch_steps), training.optimizer.gradient_accumulation_steps
    found = dict[str, str]()
    if shortest and warm_up >= shortest:
        found["phase_all_warm_up"] = (
            f"a phase of {shortest} steps never comes to its full rate: {training.warmup_epochs:g} epochs of warm-up are {warm_up} steps"
        )
    if shortest and every > min(shortest, epoch_steps):
        found["phase_without_update"] = (
            f"{every} steps are accumulated to an update, and a phase has {shortest}, an epoch {epoch_steps}: some change nothing"
        )
    return found


@dataclass(frozen=True)
class FitSpec:
    """A fit's loss spec, its batches, and each task's validation rows (a task without any is not watched)."""

    loss_spec: LossSpec
    batch_sources: Mapping[str, BatchSource]
    checks: Mapping[str, Check] = field(default_factory=dict)
    epoch: int | None = None

    @property
    def epoch_steps(self) -> int:
        """Steps between two looks at the validation rows; a control has its treated arm's number, so patience means the same in both."""
        return self.epoch or batches.epoch_steps(self.batch_sources)

    @property
    def batch_size(self) -> int:
        return sum(batch_source.batch_size for batch_source in self.batch_sources.values())


@dataclass(frozen=True)
class Trained:
    """A network after its fit, and the fit's cost. `best` is of the watched validation value; None where nothing was watched.

    `conflicts`: angles between the tasks' gradients; None with fewer than two tasks. `planned`: the steps of the whole budget.
    `stopped`: the trainer was asked to stop before the fit's end, and its checkpoint is saved. `weights`: of the best watched value,
    or those after the last step.
    """

    network: Network
    seed: int
    steps: int
    rate: float
    seconds: float
    batch_size: int
    epochs: int
    best_epoch: int | None = None
    best: dict[str, Any] | None = None
    conflicts: dict[str, Any] | None = None
    planned: int = 0
    stopped: bool = False
    weights: Literal["best", "last"] = "last"
