"""Many optimizer steps in one call of a compiled function, on TensorFlow (`program_jax`: on JAX), and which learner has such a program.

Keras's own `train_step` stands in a loop whose length is an input: however a fit is cut into calls, it is the same program, and
its bits are those of a call for each step. On small networks most of a step is what Python and TensorFlow do around it, and that
is paid once a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import tree

from worker.training.fitting.gradients import TaskGradients
from worker.training.networks import opened
from worker.training.weighting import TaskWeighting

if TYPE_CHECKING:
    from worker.training.data.batches import Batch
    from worker.training.fitting.gradients import Differentiator

SECONDS = 0.5
"""About so long a call takes: nothing stops a fit within one."""

MOST_STEPS = 64

PRESENT, DRAWN, NUMBER = "present", "drawn", "number"

Weigh = Callable[[TaskGradients, int], tuple[np.ndarray, np.ndarray, dict[str, float]]]
"""The gradients of a step's tasks and its number to: weights on what is shared (K,), on the rest (K,), and the logged values."""


class Program:
    """Of one learner, a `fitting.learner.Learner`. `run` goes on from the state that its variables hold, and leaves the new one there.

    `weigh` is asked, on the host, where a weighting weighs the tasks' gradients.
    """

    def __init__(self, learner: Any, differentiator: Differentiator, weigh: Weigh):
        self._learner, self._differentiator, self._weigh = learner, differentiator, weigh
        weighting = learner.weighting
        size = (len(learner.loss_spec.tasks),)
        held = [] if weighting is None else weighting.variables
        self._held = [variable for variable in held if tuple(variable.shape) == size]
        self._step = self._by_gradients if weighting is not None and weighting.level == "gradient" else self._by_losses
        self._names = list(learner.parts)
        self._functions: dict[str, Any] = {}

    def run(self, batches: Batch, beside: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
        """A step for each of n batches, up to the first whose loss is not finite; the logged values of each that was done.

        `batches`: (n, …) of each array. `beside`, where there is a weighting: NUMBER (n,), each step's; PRESENT (n, K) bool, the tasks
        that have a loss in it; DRAWN (n, …), what it drew.
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

        loss = self._names.index("loss")
        count = tf.shape(tree.flatten(given)[0])[0]

        def go_on(number: Any, finite: Any, logs: Any) -> Any:  # noqa: ARG001
            return tf.logical_and(number < count, finite)

        def step(number: Any, finite: Any, logs: Any) -> Any:  # noqa: ARG001
            row = self._step(*tree.map_structure(lambda each: each[number], given))
            return number + 1, tf.math.is_finite(row[loss]), tf.tensor_scatter_nd_update(logs, [[number]], [row])

        begin = (tf.constant(0), tf.constant(True), tf.zeros((count, len(self._names)), tf.float64))
        done, _, logs = tf.while_loop(go_on, step, begin, parallel_iterations=1)
        return logs, done

    def _by_losses(self, x: Any, y: Any, beside: Mapping[str, Any]) -> Any:
        """One step by Keras's `train_step`, the state of absent tasks held; its logged values, (names,) float64."""
        import tensorflow as tf

        if DRAWN in beside:
            self._learner.weighting.drawn.assign(beside[DRAWN])
        before = [tf.identity(variable.value) for variable in self._held]
        with self._learner.telling():
            told = self._learner.train_step((x, y))
        for variable, old in zip(self._held, before, strict=True):
            variable.assign(tf.where(beside[PRESENT], variable.value, old))
        return tf.stack([tf.cast(tf.cast(told[name], tf.float32), tf.float64) for name in self._names])

    def _by_gradients(self, x: Any, y: Any, beside: Mapping[str, Any]) -> Any:
        """One step with the gradient of each task by itself, which the host weighs."""
        import tensorflow as tf

        differentiate, apply = self._differentiator.functions
        *found, values, by_task, rest_of_gradient = differentiate(x, y)
        names = list(values)

        def weighed(number: np.ndarray, told: np.ndarray, *arrays: np.ndarray) -> Any:
            losses, present, gram, last, rest = (np.array(array, np.float64) for array in arrays)
            told_by_name = dict(zip(names, told.astype(np.float64).tolist(), strict=True))
            task_gradients = TaskGradients(
                losses, present.astype(bool), gram, last, float(rest), told_by_name, None, None
            )
            weights, own, logs = self._weigh(task_gradients, int(number))
            row = np.array([logs[name] for name in self._names], np.float64)
            return weights.astype(np.float32), own.astype(np.float32), row

        stacked = tf.stack([tf.cast(values[name], tf.float32) for name in names]) if names else tf.zeros((0,))
        kinds = [tf.float32, tf.float32, tf.float64]
        weights, own, row = tf.numpy_function(weighed, [beside[NUMBER], stacked, *found], kinds)
        size = found[0].shape
        apply(tf.ensure_shape(weights, size), tf.ensure_shape(own, size), by_task, rest_of_gradient)
        return tf.ensure_shape(row, (len(self._names),))


def runs(learner: Any) -> bool:
    """Whether a program computes all of a learner's step: nothing that looks at a batch twice, no state that the host keeps of gradients,
    and nothing that a weighting does around each step in a way of its own."""
    weighting = learner.weighting
    if weighting is None:
        whole = True
    elif any(getattr(type(weighting), name) is not getattr(TaskWeighting, name) for name in ("before_step", "hold")):
        whole = False
    elif weighting.level == "gradient":
        whole = not weighting.variables
    else:
        whole = not weighting.second_forward
    if keras.backend.backend() == "jax":
        return whole and learner.jit_compile and (weighting is None or weighting.level == "loss")
    return whole and keras.backend.backend() == "tensorflow"


def driver(model: Any) -> str:
    """What calls the steps that train a functional model, by model and device alone: another one's last bits are others.

    XLA's compiler for CPUs makes convolutions within a loop 6 to 80 times slower, so there the host calls each step.
    """
    if keras.backend.backend() != "jax":
        return "graph"
    import jax

    return "host" if jax.default_backend() == "cpu" and opened.has_windows(model) else "while"


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
