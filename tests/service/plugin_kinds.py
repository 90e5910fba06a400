"""A task type and an input kind of a team's own, as the four files that add them."""

from __future__ import annotations

FILES = {
    "tasks/ordinal.py": '''"""Classes in an order: for each but the last, the probability that a row lies beyond it."""

from typing import Any, Literal

from pydantic import Field

from app.spec.figures import TaskFigures
from app.spec.tasks import Output, SoftTargets

OUTPUT: Output = "sigmoid"
METRICS = ("within_one",)
SOFT_TARGETS: SoftTargets = "softened"


class Figures(TaskFigures):
    type: Literal["ordinal"] = Field(description="the target's type")
    within_one: float | None = Field(None, description="share of rows that are a class off at most")
    undefined: dict[str, str] = Field(description="why something has no value")


def accepts(column):
    return column.type == "category" and len(column.classes or ()) > 2


def natural(column):
    return False


def units(column):
    return len(column.classes) - 1


def order(ours, theirs):
    return list(range(ours.units)) if list(ours.classes) == list(theirs.classes) else None


def said(output, classes) -> dict[str, Any]:
    return {"label": classes[sum(one > 0.5 for one in output)], "beyond": dict(zip(classes, output))}


def meaning(classes):
    return "probability that a row lies beyond each class but the last"
''',
    "training/tasks/ordinal.py": '''"""Sigmoid cross-entropy of each step from a class to the next (Frank and Hall 2001)."""

import numpy as np

from worker.training.objectives.logits import binary_divergence as divergence
from worker.training.scores.measures import Metric, nothing_to_measure
from worker.training.tasks.dense import activation, as_it_is, codes, dense, sigmoid, sigmoid_cross_entropy

fit_scale, loss, answers, layers = as_it_is, sigmoid_cross_entropy, sigmoid, dense
METRICS = {"within_one": Metric("within one class", lambda sums: sums[..., 0] / sums[..., 1], mean=True)}
RELATIVE = None


def targets(task, values):
    stored, mask = codes(values)
    return (stored[:, None] > np.arange(task.units)).astype(np.float32), mask


def output_layer(task):
    return activation(task, "sigmoid")


def metric(counts):
    return "within_one"


def aligned(predicted, target):
    return predicted, target, target >= 0


def _near(predicted, target):
    return np.abs((predicted > 0.5).sum(axis=1) - target) <= 1


def statistics(metric, predicted, target):
    return np.stack([_near(predicted, target), np.ones(len(target))], axis=1).astype(np.float64)


def undefined(metric, predicted, target):
    return nothing_to_measure(predicted, target)


def figures(predicted, target, names):
    return {"within_one": float(_near(predicted, target).mean())}, {}


def agreement(student, teacher):
    return float(np.mean((student > 0.5).sum(axis=1) == (teacher > 0.5).sum(axis=1)))
''',
    "inputs/signal.py": '''"""A series of numbers of one unit."""

from app.data import columns
from app.data.lists import Numbers
from app.data.table import row_hashes
from app.spec.data import InputSchema
from app.spec.faults import Fault

DIMENSIONS = 1
ARCHITECTURE = STUDENT = "mlp"
AUGMENTATIONS = frozenset({"noise"})
RESIZED = False


def takes(values):
    return values.ndim == 2 and values.shape[1] == 48


def read(values, names, place):
    numbers = columns.as_float32(values, place)
    if isinstance(numbers, Fault):
        return [numbers]
    if (numbers.min(axis=1) == numbers.max(axis=1)).any():
        return [Fault(place, "a series does not vary", "leave it out")]
    return numbers, InputSchema(kind="signal", shape=[numbers.shape[1]])


def hashes(inputs, input):
    return row_hashes(inputs)


def encoder(input):
    numbers = Numbers(f"a series of {input.shape[0]} numbers")

    def encode(row, place, faults):
        return numbers.read(row, input.shape, place, faults)

    return encode


def preview(row, input):
    return {"series": row.tolist()}
''',
    "training/inputs/signal.py": '''"""All numbers by one mean and deviation."""

import numpy as np

from app.data.source import blocks
from worker.training.data.scaling import Scaling

SCALED_AS_THE_SOURCE = True


def fit(input, parts):
    values = np.concatenate([block.ravel() for source, rows in parts for block in blocks(source, rows)])
    return Scaling((float(values.mean()),), (float(values.std()),))


def layer(scaling, input):
    import keras

    std = scaling.std[0]
    return keras.layers.Rescaling(1 / std, -scaling.mean[0] / std, name="preprocessing", dtype="float32")


def scaling_of(layer):
    config = layer.get_config()
    std = 1 / config["scale"]
    return Scaling((-config["offset"] * std,), (std,))
''',
}
