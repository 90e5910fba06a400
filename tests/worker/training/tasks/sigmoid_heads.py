"""A program: losses and gradients of sigmoid heads at logits of 0, ±20 and ±200 on the backend of KERAS_BACKEND, as JSON on stdout."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from app.spec.models import TaskSpec
from tests.app.columns import LABELS, TWO
from tests.worker.training.tasks.slopes import gradient
from worker.training.objectives import Answers, logits
from worker.training.tasks import heads

LOGITS = (0.0, 20.0, -20.0, 200.0, -200.0)
TEACHER = (-200.0, -1.2, 0.0, 200.0)
NAN = float("nan")


def binary(label: int) -> Any:
    """(losses, gradients) of a row each: one logit, its label known."""
    task = heads.task("t", TaskSpec(), TWO)
    return _each(task, np.full(len(LOGITS), label, np.int32), np.array(LOGITS, np.float32)[:, None])


def multilabel() -> Any:
    """(losses, gradients) of three rows of four labels, one of them not known."""
    task = heads.task("t", TaskSpec(), LABELS)
    stored = np.array([[0, 1, NAN, 1]] * 3, np.float32)
    return _each(task, stored, np.array([[0.0] * 4, [200.0] * 4, [-200.0] * 4], np.float32))


def distilled(head: Any, temperature: float) -> Any:
    """(losses, gradients) of students at 0 from the teachers in `TEACHER`: a row each, or a label each of one row."""
    shape = (len(TEACHER), 1) if head == "binary" else (1, len(TEACHER))
    teacher = np.array(TEACHER, np.float32).reshape(shape)
    spec = logits.Spec(temperature=temperature)

    def loss(student: Any) -> Any:
        return logits.loss(Answers(head, student, [teacher], (1.0,), None, None), spec)

    return _told(loss, np.zeros(shape, np.float32))


def _each(task: heads.Task, stored: np.ndarray, z: np.ndarray) -> Any:
    y = heads.targets(task, stored)
    return _told(lambda logits: heads.learning(task.type).loss(y["t"], y["t/labelled"], logits)[0], z)


def _told(loss: Any, z: np.ndarray) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(loss(keras.ops.convert_to_tensor(z)))).tolist(), gradient(
        loss, z
    ).tolist()


def told() -> dict[str, Any]:
    return {
        "backend": keras.backend.backend(),
        "binary": [binary(0), binary(1)],
        "multilabel": multilabel(),
        "distilled": {
            head: [distilled(head, temperature) for temperature in (1.0, 4.0)] for head in ("binary", "multilabel")
        },
    }
