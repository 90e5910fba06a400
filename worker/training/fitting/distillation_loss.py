"""The objectives of a loss spec in a step: their values, the layers that they read, the projectors that they train.

A batch holds teacher NUMBER's logits under `TASK/teacher/NUMBER` and its features under `TASK/teacher/NUMBER/LAYER`; the student's own
features come from the same pass as its logits, under `TASK/feature/LAYER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from app.spec.registry import module_of, name_of
from worker.training.networks.seeds import derive
from worker.training.objectives import Answers, standardised

if TYPE_CHECKING:
    from app.spec.base import SpecModel
    from worker.training.fitting.loss_spec import LossSpec
    from worker.training.networks.build import KerasLayers
    from worker.training.tasks.heads import Task


def student_layers(objectives: Sequence[SpecModel]) -> list[str]:
    """The student's layers that these objectives read, each once."""
    return list(dict.fromkeys(pair[1] for objective in objectives for pair in getattr(objective, "layers", None) or ()))


def teacher_layers(objectives: Sequence[SpecModel]) -> list[str]:
    """The teachers' layers that these objectives read, each once."""
    return list(dict.fromkeys(pair[0] for objective in objectives for pair in getattr(objective, "layers", None) or ()))


class DistillationLoss:
    """`projectors`: {name: layer}, built. They act on the student's features and are trained with it, but are no part of its network."""

    def __init__(self, keras_layers: KerasLayers, loss_spec: LossSpec):
        self.loss_spec = loss_spec
        self.layers = {task: student_layers(objectives) for task, objectives in loss_spec.objectives.items()}
        self.projectors: dict[str, Any] = {}
        for task, objectives in loss_spec.objectives.items():
            for number, objective in enumerate(objectives):
                if getattr(objective, "projector", "none") == "auto":
                    self._project(keras_layers, task, number, objective)

    def reseed(self, seed: int) -> None:
        """Fresh projectors: kernels Glorot-uniform from (seed, name) as a network's, biases 0."""
        for name, layer in self.projectors.items():
            rng = np.random.default_rng(derive(seed, name))
            fan_in, fan_out = layer.kernel.shape
            limit = (6 / (fan_in + fan_out)) ** 0.5
            layer.kernel.assign(rng.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32))
            layer.bias.assign(np.zeros(fan_out, np.float32))

    def names(self, task: str) -> list[str]:
        """The name under which each objective's value is logged: its type, numbered where it comes twice."""
        types = [name_of("objectives", objective) for objective in self.loss_spec.objectives.get(task, ())]
        counts = [types[: number + 1].count(name) for number, name in enumerate(types)]
        named = [name if count == 1 else f"{name}_{count}" for name, count in zip(types, counts, strict=True)]
        return [f"{task}_{name}" for name in named] if len(self.loss_spec.tasks) > 1 else named

    def values(self, task: Task, y: Mapping[str, Any], y_pred: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        """(value, weight in this step) of each objective, both scalars; the value is the mean over all rows."""
        terms = []
        for number, objective in enumerate(self.loss_spec.objectives.get(task.name, ())):
            module = module_of("objectives", objective)
            if module.NEEDS == "logits":
                value = module.loss(self._answers(task, y, y_pred[task.name]), objective)
            else:
                value = self._of_features(module, task.name, number, objective, y, y_pred)
            weight = objective.weight * ops.cast(y.get(f"{task.name}/factor/{number}", 1.0), "float32")  # type: ignore[attr-defined]
            terms.append((ops.mean(value), weight))
        return terms

    def _answers(self, task: Task, y: Mapping[str, Any], logits: Any) -> Answers:
        weights = self.loss_spec.teachers[task.name]
        student = ops.cast(logits, "float32")
        given = [ops.stop_gradient(y[f"{task.name}/teacher/{number}"]) for number in range(len(weights))]
        if self.loss_spec.logit_standardization:
            student, given = standardised(student), [standardised(teacher) for teacher in given]
        mixed = (
            f"{task.name}/share" in y
        )  # then a row has two labels, and no objective takes them: the teachers saw the mixed row
        labels, labelled = (None, None) if mixed else (y.get(task.name), y.get(f"{task.name}/labelled"))
        return Answers(task.type, student, given, weights, labels, labelled)

    def _of_features(
        self, module: Any, task: str, number: int, spec: Any, y: Mapping[str, Any], y_pred: Mapping[str, Any]
    ) -> Any:
        """Sum over the pairs of the teachers' mean by their weights."""
        weights = self.loss_spec.teachers[task]
        total: Any = 0.0
        for place, (theirs, ours) in enumerate(spec.layers):
            student = ops.cast(y_pred[f"{task}/feature/{ours}"], "float32")
            for teacher, weight in enumerate(weights):
                given = ops.stop_gradient(ops.cast(y[f"{task}/teacher/{teacher}/{theirs}"], "float32"))
                projector = self.projectors.get(_name(task, number, place, teacher))
                seen = student if projector is None else projector(student)
                total = total + weight / sum(weights) * ops.mean(module.loss(given, seen, spec))
        return total

    def _project(self, keras_layers: KerasLayers, task: str, number: int, spec: Any) -> None:
        """A dense layer over the last axis, which on feature maps is a 1×1 convolution."""
        for place, (theirs, ours) in enumerate(spec.layers):
            for teacher in range(len(self.loss_spec.teachers[task])):
                name = _name(task, number, place, teacher)
                layer = keras.layers.Dense(self.loss_spec.widths[task][theirs], name=name, dtype="float32")
                layer.build((None, keras_layers.reached[ours].shape[-1]))
                self.projectors[name] = layer


def _name(task: str, objective: int, pair: int, teacher: int) -> str:
    return f"{task}_projector_{objective}_{pair}_{teacher}"
