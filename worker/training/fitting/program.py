"""Many optimizer steps in one call of a compiled function, on TensorFlow.

Keras's own `train_step` stands in a loop whose length is an input: however a fit is cut into calls, it is the same program, and
its bits are those of a call for each step. On small networks most of a step is what Python and TensorFlow do around it, and that
is paid once a call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import tree

if TYPE_CHECKING:
    from worker.training.data.batches import Batch
    from worker.training.fitting.learner import Learner

SECONDS = 0.5
"""About so long a call takes: nothing stops a fit within one."""

MOST_STEPS = 64
MOST_BYTES = 2**19
"""Of a batch's inputs: a larger one is computed long, and it is read while the one before is computed."""

PRESENT, DRAWN = "present", "drawn"


class Program:
    """Of one learner. `run` goes on from the state that its variables hold, and leaves the new one there."""

    def __init__(self, learner: Learner):
        self._learner = learner
        weighting = learner.weighting
        size = (len(learner.loss_spec.tasks),)
        held = [] if weighting is None else weighting.variables
        self._held = [variable for variable in held if tuple(variable.shape) == size]
        self._names = list(learner.parts)
        self._functions: dict[str, Any] = {}

    def run(self, batches: Batch, beside: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
        """A step for each of n batches, up to the first whose loss is not finite; the logged values of each that was done.

        `batches`: (n, …) of each array. `beside`, where there is a weighting: PRESENT (n, K) bool, the tasks that have a loss in each
        step; DRAWN (n, …), what it drew.
        """
        import tensorflow as tf

        given = (*batches, beside)
        kinds = tree.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), given)
        key = str(kinds)
        if key not in self._functions:
            # No branch hangs on a tensor's value but the loop itself, so AutoGraph has nothing to convert.
            self._functions[key] = tf.function(self._steps, input_signature=[kinds], autograph=False)
        logs, done = self._functions[key](given)
        return [dict(zip(self._names, row, strict=True)) for row in logs.numpy()[: int(done)].tolist()]

    def _steps(self, given: Any) -> Any:
        import tensorflow as tf

        learner, loss = self._learner, self._names.index("loss")
        count = tf.shape(tree.flatten(given)[0])[0]

        def go_on(number: Any, finite: Any, logs: Any) -> Any:  # noqa: ARG001
            return tf.logical_and(number < count, finite)

        def step(number: Any, finite: Any, logs: Any) -> Any:  # noqa: ARG001
            x, y, beside = tree.map_structure(lambda each: each[number], given)
            if DRAWN in beside:
                learner.weighting.drawn.assign(beside[DRAWN])
            before = [tf.identity(variable.value) for variable in self._held]
            with learner.telling():
                told = learner.train_step((x, y))
            for variable, old in zip(self._held, before, strict=True):
                variable.assign(tf.where(beside[PRESENT], variable.value, old))
            row = tf.stack([tf.cast(told[name], tf.float32) for name in self._names])
            return number + 1, tf.math.is_finite(row[loss]), tf.tensor_scatter_nd_update(logs, [[number]], [row])

        begin = (tf.constant(0), tf.constant(True), tf.zeros((count, len(self._names))))
        done, _, logs = tf.while_loop(go_on, step, begin, parallel_iterations=1)
        return logs, done


def runs(learner: Learner) -> bool:
    """Whether a program computes all of a learner's step: not gradients of single tasks, and nothing that looks at a batch twice."""
    weighting = learner.weighting
    by_losses = weighting is None or (weighting.level == "loss" and not weighting.second_forward)
    return keras.backend.backend() == "tensorflow" and by_losses


class Pace:
    """How many steps the next call has: as many as fit into `SECONDS`, judged by the last call, and at most twice as many as before."""

    def __init__(self, most: int = MOST_STEPS):
        self._most, self._next = most, 1

    def steps(self, left: int) -> int:
        """`left`: steps until something is due."""
        return min(self._next, left)

    def took(self, steps: int, seconds: float) -> None:
        fitting = math.floor(SECONDS * steps / max(seconds, 1e-9))
        self._next = max(1, min(self._most, 2 * self._next, fitting))
