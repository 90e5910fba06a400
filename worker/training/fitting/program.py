"""Many optimizer steps in one call of a compiled function, on TensorFlow (`program_jax`: on JAX), and which learner has such a program.

Keras's own `train_step` stands in a loop whose length is an input: however a fit is cut into calls, it is the same program, and
its bits are the same. On small networks most of a step is what Python and TensorFlow do around it, and that is paid once a call.

There are two drivers. "graph" has the very bits of a call for each step. "xla" compiles the loop as a whole: for long phases of
dense networks, whose operations are so small that even TensorFlow's handing them out takes longer than they do. Its last bits are
others, so which of the two a fit has follows from its words alone, never from a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from keras import tree

from app.spec.registry import module_of
from worker.training.fitting import rates
from worker.training.fitting.gradients import TaskGradients
from worker.training.networks import opened
from worker.training.weighting import TaskWeighting

if TYPE_CHECKING:
    from worker.training.data.batches import Batch
    from worker.training.fitting.gradients import Differentiator
    from worker.training.fitting.loss_spec import LossSpec

SECONDS = 0.5
"""About so long a call takes: nothing stops a fit within one."""

MOST_STEPS = 64

XLA_STEPS = 3000
"""Of a phase, from which on XLA is worth its time: it compiles about a second longer, and its steps take a third."""

Driver = Literal["graph", "xla", "while", "host"]
"""The first two are TensorFlow's, the others JAX's."""

_SMALL = (
    "InputLayer", "Dense", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax",
    "BatchNormalization", "LayerNormalization", "Normalization", "Rescaling", "Flatten", "Reshape", "Add", "Subtract", "Multiply",
    "Average", "Maximum", "Minimum", "Concatenate", "Identity",
)  # fmt: skip
"""Keras's layers that XLA may have in a loop on a processor: convolutions are 50 times as slow there, a dropout's draws take longer
than the rest of a small network's step, and pooling is not repeatable."""

RATE, PRESENT, DRAWN, NUMBER = "rate", "present", "drawn", "number"

Weigh = Callable[[TaskGradients, int], tuple[np.ndarray, np.ndarray, dict[str, float]]]
"""The gradients of a step's tasks and its number to: weights on what is shared (K,), on the rest (K,), and the logged values."""


class Program:
    """Of one learner, a `fitting.learner.Learner`. `run` goes on from the state that its variables hold, and leaves the new one there.

    `weigh` is asked, on the host, where a weighting weighs the tasks' gradients.
    """

    def __init__(self, learner: Any, differentiator: Differentiator, weigh: Weigh, driver: Driver):
        self._learner, self._differentiator, self._weigh, self._xla = learner, differentiator, weigh, driver == "xla"
        weighting, self._optimizer = learner.weighting, rates.plain(learner.optimizer)
        size = (len(learner.loss_spec.tasks),)
        held = [] if weighting is None else weighting.variables
        self._held = [variable for variable in held if tuple(variable.shape) == size]
        self._step = self._by_gradients if weighting is not None and weighting.level == "gradient" else self._by_losses
        self._names = list(learner.parts)
        self._functions: dict[str, Any] = {}

    def run(self, batches: Batch, beside: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
        """A step for each of n batches, up to the first whose loss is not finite; the logged values of each that was done.

        `batches`: (n, …) of each array. `beside`: RATE (n,), each step's; where there is a weighting NUMBER (n,), each step's; PRESENT
        (n, K) bool, the tasks that have a loss in it; DRAWN (n, …), what it drew.
        """
        import tensorflow as tf

        given = (*batches, beside)
        count = len(tree.flatten(given)[0])
        if self._xla:  # which would compile a program for each number of steps
            given = tree.map_structure(lambda array: filled(array, MOST_STEPS), given)
        size = MOST_STEPS if self._xla else None
        kinds = tree.map_structure(lambda array: tf.TensorSpec((size, *array.shape[1:]), array.dtype), given)
        key = str(kinds)
        if key not in self._functions:
            # No branch hangs on a tensor's value but the loop itself, so AutoGraph has nothing to convert.
            signature = [kinds, tf.TensorSpec((), tf.int32)]
            self._functions[key] = tf.function(
                self._steps, input_signature=signature, autograph=False, jit_compile=self._xla
            )
        logs, done = self._functions[key](given, np.int32(count))
        return [dict(zip(self._names, row, strict=True)) for row in logs.numpy()[: int(done)].tolist()]

    def _steps(self, given: Any, count: Any) -> Any:
        import tensorflow as tf

        loss, rows = self._names.index("loss"), tf.shape(tree.flatten(given)[0])[0]

        def go_on(number: Any, finite: Any, logs: Any) -> Any:  # noqa: ARG001
            return tf.logical_and(number < count, finite)

        def step(number: Any, finite: Any, logs: Any) -> Any:  # noqa: ARG001
            x, y, beside = tree.map_structure(lambda each: each[number], given)
            self._optimizer.learning_rate.assign(beside[RATE])
            row = self._step(x, y, beside)
            return number + 1, tf.math.is_finite(row[loss]), tf.tensor_scatter_nd_update(logs, [[number]], [row])

        begin = (tf.constant(0), tf.constant(True), tf.zeros((rows, len(self._names)), tf.float64))
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


def filled(array: np.ndarray, size: int) -> np.ndarray:
    """`array` with zeros behind it, so that there are `size` rows."""
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def driver(operations: Iterable[Any], loss_spec: LossSpec, steps: int) -> Driver:
    """Of a phase of `steps` that computes with these layers and ops.

    TensorFlow: what asks the host within a step cannot be compiled, nor is a decomposition. JAX: the loop, but where XLA would have
    convolutions in it on a processor.
    """
    if keras.backend.backend() == "jax":
        import jax

        return "host" if jax.default_backend() == "cpu" and opened.has_windows(operations) else "while"
    weighting, regularizer = loss_spec.weighting, loss_spec.regularizer
    outside = weighting is not None and module_of("weighting", weighting).Weighting.level == "gradient"
    outside |= regularizer is not None and module_of("regularizers", regularizer).Term.features
    is_small = all(type(each).__name__ in _SMALL and type(each).__module__.startswith("keras.") for each in operations)
    return "xla" if steps >= XLA_STEPS and is_small and not outside else "graph"


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
