"""Parts that several task types share: targets, masks, losses of single outputs, and the layers of a dense head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from app.spec.models import HeadSpec
    from worker.training.tasks.heads import Task


def as_it_is(task: Task, values: np.ndarray) -> Task:  # noqa: ARG001
    """`fit_scale` of targets that are not scaled."""
    return task


def codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers with 0 for those that are missing (-1), and their mask: (n,) float32."""
    mask = values >= 0
    return np.where(mask, values, 0), mask.astype(np.float32)


def mean_over_outputs(each: Any, mask: Any) -> tuple[Any, Any]:
    """The mean loss over a row's known outputs, and which rows have any: (n,) each, of losses (n, units) and a mask (n,) or (n, units)."""
    from keras import ops

    there = mask if len(mask.shape) == 2 else ops.expand_dims(mask, -1)
    rows = ops.sum(each * there, axis=-1) / ops.maximum(ops.sum(there * ops.ones_like(each), axis=-1), 1.0)
    return rows, ops.cast(ops.any(there > 0, axis=-1), "float32")


def sigmoid_cross_entropy(target: Any, mask: Any, logits: Any) -> tuple[Any, Any]:
    """`loss` of sigmoid outputs: −log of the probability of each label's truth, mean over a row's known labels.

    The usual form max(z, 0) − z·y + log(1 + exp(−|z|)) has a wrong gradient at z = 0, where each backend chooses one for max and |z|. The
    shorter softplus(z) − z·y loses the digits of a small loss where y = 1.
    """
    from keras import ops

    return mean_over_outputs(target * ops.softplus(-logits) + (1.0 - target) * ops.softplus(logits), mask)


def sigmoid(task: Task, logits: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """`answers` of sigmoid outputs."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def dense(task: Task, head: HeadSpec, dtype: Any) -> list[Any]:
    """`layers` of a head with a dense output, after an optional hidden layer and dropout."""
    import keras

    made: list[Any] = []
    if head.units is not None:
        made.append(keras.layers.Dense(head.units, activation=head.activation, name=f"{task.name}_hidden", dtype=dtype))
    if head.dropout:
        made.append(keras.layers.Dropout(head.dropout, name=f"{task.name}_dropout", dtype=dtype, seed=0))
    return [*made, keras.layers.Dense(task.units, name=f"{task.name}_logits", dtype="float32")]


def activation(task: Task, name: str) -> Any:
    """An output layer that is an activation."""
    import keras

    return keras.layers.Activation(name, name=task.name, dtype="float32")
