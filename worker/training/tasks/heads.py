"""Tasks: what a head predicts, how its labels are stored, its loss row by row, and its answers in the user's words and units.

A task's numbers travel in three forms. *Stored*: as the data set's column holds them (class codes, 0/1 rows, user's units; -1
and NaN are missing). *Targets*: what the loss compares with (codes, 0/1, standardised numbers; missing ones 0 under a mask).
*Logits*: what the layer `<task>_logits` gives. Keras is imported only where a tensor is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app.spec.data import Column
from app.spec.models import HeadSpec, TaskManifest, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.spec.models import TaskType


@dataclass(frozen=True)
class Task:
    """One head. `mean` and `std` (regression, standardised) are of the training rows; None before they are fitted."""

    name: str
    type: TaskType
    column: str
    units: int
    classes: tuple[str, ...] | None = None
    standardize: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def activation(self) -> str | None:
        return {"multiclass": "softmax", "regression": None}.get(self.type, "sigmoid")

    def manifest(self) -> TaskManifest:
        return TaskManifest(
            type=self.type,
            column=self.column,
            classes=list(self.classes) if self.classes is not None else None,
            units=self.units,
            mean=list(self.mean) if self.mean is not None else None,
            std=list(self.std) if self.std is not None else None,
        )


def type_of(column: Column) -> TaskType:
    """What a column asks for: two classes binary, more multiclass, numbers regression, labels multilabel."""
    if column.type == "category":
        return "binary" if len(column.classes or []) == 2 else "multiclass"
    return "regression" if column.type == "number" else "multilabel"


def fits(kind: TaskType, column: Column) -> bool:
    """Two classes may also be learnt as a softmax of two."""
    natural = type_of(column)
    return kind == natural or (kind == "multiclass" and natural == "binary")


def task(name: str, spec: TaskSpec, column: Column) -> Task:
    """The task that a resolved `spec` (type and column given) describes on `column`."""
    kind = spec.type or type_of(column)
    classes = tuple(column.classes) if column.classes is not None else None
    units = {"binary": 1, "regression": int(np.prod(column.shape)) if column.shape else 1}.get(kind, len(classes or ()))
    return Task(name, kind, column.name, units, classes, spec.standardize)


def of_manifest(name: str, manifest: TaskManifest) -> Task:
    """The task as a kept model learnt it."""
    return Task(
        name,
        manifest.type,
        manifest.column,
        manifest.units,
        tuple(manifest.classes) if manifest.classes is not None else None,
        manifest.mean is not None,
        tuple(manifest.mean) if manifest.mean is not None else None,
        tuple(manifest.std) if manifest.std is not None else None,
    )


def fit_scale(task: Task, values: np.ndarray) -> Task:
    """`task` with mean and standard deviation of the stored `values` (training rows only); a constant column is only shifted."""
    if task.type != "regression" or not task.standardize:
        return task
    flat = values.astype(np.float64).reshape(len(values), -1)
    mean, std = np.nanmean(flat, axis=0), np.nanstd(flat, axis=0)
    std = np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, 1.0)
    return replace(task, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def targets(task: Task, values: np.ndarray) -> dict[str, np.ndarray]:
    """What the loss needs of stored `values`, under the names of a batch: `NAME` and `NAME/labelled`.

    `NAME/labelled` is (n,) for category columns and (n, units) otherwise: single labels and numbers of a row may be missing.
    """
    if values.dtype.kind in "iu":
        mask = values >= 0
        codes = np.where(mask, values, 0)
        stored = codes.astype(np.int32) if task.type == "multiclass" else codes.astype(np.float32).reshape(-1, 1)
        return {task.name: stored, f"{task.name}/labelled": mask.astype(np.float32)}
    flat = values.astype(np.float64).reshape(len(values), -1)
    mask = ~np.isnan(flat)
    flat = np.where(mask, flat, 0.0 if task.mean is None else np.array(task.mean))
    return {
        task.name: standardised(task, flat).astype(np.float32),
        f"{task.name}/labelled": mask.astype(np.float32),
    }


def standardised(task: Task, values: np.ndarray) -> np.ndarray:
    return values if task.mean is None else (values - np.array(task.mean)) / np.array(task.std)


def in_units(task: Task, values: np.ndarray) -> np.ndarray:
    return values if task.mean is None else values * np.array(task.std) + np.array(task.mean)


def answers(task: Task, logits: np.ndarray) -> np.ndarray:
    """What the inference model says for these logits: probabilities (n, units), or numbers in the user's units."""
    logits = logits.astype(np.float64)
    if task.type == "regression":
        return in_units(task, logits)
    if task.type == "multiclass":
        raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def loss(task: Task, y: Mapping[str, Any], logits: Any) -> tuple[Any, Any]:
    """(mean loss over the labelled rows of a batch, how many rows are labelled), both scalars; 0 where none is.

    binary and multilabel: sigmoid cross-entropy, mean over a row's labels. multiclass: softmax cross-entropy. regression:
    squared error of standardised numbers, mean over a row's numbers. Labels missing within a row are left out of its mean.
    """
    from keras import ops

    target, mask = y[task.name], y[f"{task.name}/labelled"]
    logits = ops.cast(logits, "float32")
    if task.type == "multiclass":
        rows = -ops.take_along_axis(ops.log_softmax(logits, axis=-1), ops.expand_dims(target, -1), axis=-1)[:, 0]
    else:
        if task.type == "regression":
            each = ops.square(logits - target)
        else:
            each = ops.relu(logits) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
        there = mask if len(mask.shape) == 2 else ops.expand_dims(mask, -1)
        rows = ops.sum(each * there, axis=-1) / ops.maximum(ops.sum(there * ops.ones_like(each), axis=-1), 1.0)
        mask = ops.cast(ops.any(there > 0, axis=-1), "float32")
    count = ops.sum(mask)
    return ops.sum(rows * mask) / ops.maximum(count, 1.0), count


def layers(task: Task, head: HeadSpec, dtype: Any) -> list[Any]:
    """The Keras layers of a head, the last one named `<task>_logits`: always in float32, whatever the trunk computes in."""
    import keras

    made: list[Any] = []
    if head.units is not None:
        made.append(keras.layers.Dense(head.units, activation=head.activation, name=f"{task.name}_hidden", dtype=dtype))
    if head.dropout:
        made.append(keras.layers.Dropout(head.dropout, name=f"{task.name}_dropout", dtype=dtype, seed=0))
    return [*made, keras.layers.Dense(task.units, name=f"{task.name}_logits", dtype="float32")]


def output_layer(task: Task) -> Any:
    """The stock layer named `<task>` that turns logits into answers in a kept model."""
    import keras

    if task.type != "regression":
        return keras.layers.Activation(task.activation, name=task.name, dtype="float32")
    std, mean = (1.0, 0.0) if task.mean is None or task.std is None else (list(task.std), list(task.mean))
    return keras.layers.Rescaling(std, mean, name=task.name, dtype="float32")
