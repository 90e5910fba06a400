"""The state of a fit: the validation value that is watched, and the means of logged values in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.scores import evaluate
from worker.training.scores.measures import metric_of
from worker.training.tasks import heads

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.training import TrainingSpec
    from worker.training.fitting.plan import Check
    from worker.training.networks.build import KerasLayers
    from worker.training.networks.network import Network, Weights


class ValidationMonitor:
    """The validation value of the verdict's metric (mean over tasks), the best so far, and whether patience is spent."""

    def __init__(self, checks: Mapping[str, Check], training: TrainingSpec):
        self._checks = {name: check for name, check in checks.items() if len(check.inputs)}
        alone = [metric_of(check.metric).sign for check in self._checks.values()] if len(self._checks) == 1 else [1]
        self._sign = alone[0]  # of several the mean is told, each oriented so that more is better
        self._parts: dict[int, list[Source]] = {}
        self._stopping = training.early_stopping
        self._waited = 0
        self.best: dict[str, Any] | None = None
        self.best_weights: Weights | None = None
        self.latest: dict[str, float] = {}

    @property
    def over(self) -> bool:
        return self._stopping != "off" and self._waited >= self._stopping.patience

    def begin_phase(self) -> None:
        """Starts patience anew: it ends one phase, not those after it."""
        self._waited = 0

    def look(
        self, keras_layers: KerasLayers, network: Network, step: int, ask: Callable[[Source], dict[str, np.ndarray]]
    ) -> dict[str, float]:
        """The validation values now, named `val_METRIC`, with several tasks `val_TASK_METRIC`."""
        values: dict[str, float] = {}
        by_inputs: dict[int, dict[str, np.ndarray]] = {}  # tasks of one data set share inputs and so one pass
        for name, check in self._checks.items():
            answers = by_inputs.setdefault(id(check.inputs), {}) or self._answers(network, check.inputs, ask)
            by_inputs[id(check.inputs)] = answers
            measured = evaluate.measure(network.tasks[name].type, answers[name], check.values, metric=check.metric)
            values[f"val_{name}_{check.metric}" if len(network.tasks) > 1 else f"val_{check.metric}"] = measured.value
        signs = [metric_of(check.metric).sign for check in self._checks.values()]
        finite = [sign * value for sign, value in zip(signs, values.values(), strict=True) if math.isfinite(value)]
        if finite:
            self._judge(sum(finite) / len(finite), values, keras_layers, step)
        self.latest = values
        return values

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "waited": self._waited,
            "layers": {name: len(arrays) for name, arrays in (self.best_weights or {}).items()},
        }

    def arrays(self) -> list[np.ndarray]:
        return [array for arrays in (self.best_weights or {}).values() for array in arrays]

    def restore(self, state: dict[str, Any], arrays: list[np.ndarray]) -> None:
        self.best, self._waited = state["best"], state["waited"]
        if arrays:
            rest = iter(arrays)
            self.best_weights = {name: [next(rest) for _ in range(count)] for name, count in state["layers"].items()}

    def _answers(
        self, network: Network, inputs: Source, ask: Callable[[Source], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """As scores need them, of the tasks that are checked on `inputs`."""
        own = {name: network.tasks[name] for name, check in self._checks.items() if check.inputs is inputs}
        # Kept, since features are cached by a source's identity.
        parts = self._parts.setdefault(id(inputs), heads.blocks(own.values(), inputs))
        return heads.scored(own, parts, ask, network.scaling.tokenizer)

    def _judge(self, value: float, values: Mapping[str, float], keras_layers: KerasLayers, step: int) -> None:
        """Takes the state for the best one where `value`, of which more is better, is the largest so far."""
        if self.best is None or value > self._sign * self.best["value"]:
            name = next(iter(values)) if len(values) == 1 else "val_mean"
            self.best, self._waited = {"metric": name, "value": self._sign * value, "step": step}, 0
            if self._stopping != "off" and self._stopping.restore_best:
                self.best_weights = keras_layers.read()
        else:
            self._waited += 1


class Means:
    """The mean of each logged value since the last look; a task that is absent from a step has no value there."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}
        self.latest: dict[str, float] = {}

    def add(self, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            if math.isfinite(value):
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = (total + value, count + 1)
        self.latest = dict(logs)

    def take(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means
