"""Each task's gradient on the shared variables: the one computation that differs between Keras backends.

A backend gives two compiled functions. `differentiate(x, y)`: the losses of the tasks, and the gradient by every trained
variable of each loss and of the rest of the total (objectives, regularisers). `apply(weights, own, gradients, beside)`: one
optimizer step with Σ weights · gradients on the shared variables and Σ own · gradients on the others. In between a weighting
sees the Gramian alone, on the host.

Costs K + 1 backward passes a step and memory for K gradients. Loss scaling is undone before anything is compared. Products are
summed element by element: a matrix product would be rounded to TF32 on some GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

if TYPE_CHECKING:
    from worker.training.data.batches import Batch
    from worker.training.networks.build import KerasLayers


@dataclass
class TaskGradients:
    """The results of `differentiate`: NumPy but for `by_task` [(K, *shape)] and `beside` [(*shape)], which stay on the device.

    `losses`, `present`: (K,). `gram`, `last`: (K, K) dot products on all shared variables, and on the last shared layer's.
    `rest`: the total without the tasks' losses; `values`: of each objective, by its logged name.
    """

    losses: np.ndarray
    present: np.ndarray
    gram: np.ndarray
    last: np.ndarray
    rest: float
    values: dict[str, float]
    by_task: Any
    beside: Any


class Differentiator:
    """Of one learner. `shared`: the trained variables of the layers that the tasks share.

    The rest belongs to single tasks: heads, gates, experts of their own.
    """

    def __init__(self, keras_layers: KerasLayers, learner: Any):
        backend = keras.backend.backend()
        if backend not in BACKENDS:
            raise NotImplementedError(f"task gradients need one of {', '.join(BACKENDS)}; the backend is {backend}")
        self._learner = learner
        shared = {name: keras_layers.layers[name].trainable_variables for name in keras_layers.trunk}
        places = {id(variable): place for place, variable in enumerate(learner.trainable_variables)}
        self._shared = [places[id(variable)] for variables in shared.values() for variable in variables]
        self._last = [places[id(variable)] for name in keras_layers.graph.last for variable in shared[name]]
        self._functions: dict[bool, Any] = {}

    def gram(self, batch: Batch) -> np.ndarray | None:
        """Dot products of the tasks' gradients (K, K) in inference mode, nan where the batch has no label; nothing is changed.

        None where there is nothing to compare.
        """
        if not self._shared or len(self._learner.loss_spec.tasks) < 2:
            return None
        task_gradients = self._differentiate(batch, training=False)
        return np.where(np.outer(task_gradients.present, task_gradients.present), task_gradients.gram, np.nan)

    def losses(self, batch: Batch) -> np.ndarray:
        """Each task's loss (K,) in inference mode, nan where the batch has none of it; nothing is changed."""
        task_gradients = self._differentiate(batch, training=False)
        return np.where(task_gradients.present, task_gradients.losses, np.nan)

    def differentiate(self, batch: Batch) -> TaskGradients:
        """The forward and backward passes of a training step: dropout is drawn, BatchNorm moves."""
        return self._differentiate(batch, training=True)

    @property
    def functions(self) -> tuple[Any, Any]:
        """The backend's two functions of a training step, `differentiate` and `apply`."""
        differentiate, apply = self._compiled(True)
        return differentiate, apply

    def apply(self, task_gradients: TaskGradients, weights: np.ndarray, own: np.ndarray) -> None:
        """The optimizer's step: `weights` (K,) multiply the tasks' gradients on the shared variables, `own` (K,) on the others."""
        _, apply = self.functions
        apply(weights.astype(np.float32), own.astype(np.float32), task_gradients.by_task, task_gradients.beside)

    def _differentiate(self, batch: Batch, *, training: bool) -> TaskGradients:
        run, _ = self._compiled(training)
        losses, present, gram, last, rest, values, by_task, beside = run(*batch)
        return TaskGradients(
            _numpy(losses),
            _numpy(present).astype(bool),
            _numpy(gram),
            _numpy(last),
            float(_numpy(rest)),
            {name: float(_numpy(value)) for name, value in values.items()},
            by_task,
            beside,
        )

    def _compiled(self, training: bool) -> Any:
        if training not in self._functions:
            make = BACKENDS[keras.backend.backend()]
            self._functions[training] = make(self._learner, set(self._shared), self._products, training)
        return self._functions[training]

    def _products(self, by_task: Sequence[Any]) -> tuple[Any, Any]:
        """(K, K) of all shared variables, and of the last shared layer's."""
        k = len(self._learner.loss_spec.tasks)
        total, last = ops.zeros((k, k)), ops.zeros((k, k))
        for place in self._shared:
            flat = ops.reshape(ops.cast(by_task[place], "float32"), (k, -1))
            products = ops.stack([ops.sum(flat * flat[i], axis=-1) for i in range(k)])
            total = total + products
            if place in self._last:
                last = last + products
        return total, last


def _terms(learner: Any, x: Any, y: Any, training: bool) -> tuple[list[Any], Any, Any, dict[str, Any]]:
    """The losses of the tasks and the rest of the total, which tasks are present, and the objectives' values."""
    logits = learner(x, training=training)
    losses, present, values = learner.task_losses(y, logits)
    rest, more = learner.beside(y, logits)
    return [*losses.values(), rest], ops.stack(list(present.values())), rest, values | more


def _combined(shared: set[int], weights: Any, own: Any, by_task: Sequence[Any], beside: Sequence[Any]) -> list[Any]:
    gradients = []
    for place, (each, more) in enumerate(zip(by_task, beside, strict=True)):
        used = ops.cast(weights if place in shared else own, each.dtype)
        gradients.append(ops.sum(each * ops.reshape(used, (-1, *[1] * (len(each.shape) - 1))), axis=0) + more)
    return gradients


def _tensorflow(learner: Any, shared: set[int], products: Callable[..., Any], training: bool) -> Any:
    import tensorflow as tf

    optimizer = learner.optimizer

    def differentiate(x: Any, y: Any) -> Any:
        variables = [variable.value for variable in learner.trainable_variables]
        with tf.GradientTape(persistent=True) as tape:
            terms, present, rest, values = _terms(learner, x, y, training)
            scaled = [optimizer.scale_loss(term) for term in terms]
        zero = tf.UnconnectedGradients.ZERO
        scale = optimizer.scale_loss(tf.ones(()))
        each = [tape.gradient(term, variables, unconnected_gradients=zero) for term in scaled]
        each = [
            [tf.convert_to_tensor(slope) / tf.cast(scale, slope.dtype) for slope in task_gradients]
            for task_gradients in each
        ]
        by_task = [tf.stack(task_gradients) for task_gradients in zip(*each[:-1], strict=True)]
        return tf.stack(terms[:-1]), present, *products(by_task), rest, values, by_task, each[-1]

    def apply(weights: Any, own: Any, by_task: Any, beside: Any) -> None:
        gradients = _combined(shared, weights, own, by_task, beside)
        optimizer.apply([optimizer.scale_loss(slope) for slope in gradients], learner.trainable_variables)

    # No branch in them hangs on a tensor's value, so AutoGraph has nothing to convert: looking for it is a fifth of their tracing.
    # Not taken apart within a loop around them: they would be optimized with what is there, and have other last bits than alone.
    words: dict[str, Any] = {"autograph": False, "experimental_attributes": {"_noinline": True}}
    return tf.function(differentiate, **words), tf.function(apply, **words)


def _jax(learner: Any, shared: set[int], products: Callable[..., Any], training: bool) -> Any:
    import jax

    optimizer = learner.optimizer

    def read(variables: Sequence[Any]) -> list[Any]:
        return [variable.value for variable in variables]

    def pure(trained: Any, other: Any, scale: Any, x: Any, y: Any) -> Any:
        def terms(trained: Any) -> Any:
            pairs = [*zip(learner.trainable_variables, trained, strict=True)]
            pairs += zip(learner.non_trainable_variables, other, strict=True)
            with keras.StatelessScope(state_mapping=pairs) as scope:
                parts, present, rest, values = _terms(learner, x, y, training)
            moved = [scope.get_current_value(variable) for variable in learner.non_trainable_variables]
            whole = jax.numpy.stack(parts)
            return whole * scale, (whole[:-1], present, rest, values, moved)

        scaled, back, (losses, present, rest, values, moved) = jax.vjp(terms, trained, has_aux=True)
        (each,) = jax.vmap(back)(jax.numpy.eye(len(scaled), dtype=scaled.dtype))
        each = [task_gradients / scale.astype(task_gradients.dtype) for task_gradients in each]
        by_task = [task_gradients[:-1] for task_gradients in each]
        return (
            losses,
            present,
            *products(by_task),
            rest,
            values,
            by_task,
            [task_gradients[-1] for task_gradients in each],
        ), moved

    def pure_apply(trained: Any, inner: Any, weights: Any, own: Any, by_task: Any, beside: Any, scale: Any) -> Any:
        gradients = [slope * scale.astype(slope.dtype) for slope in _combined(shared, weights, own, by_task, beside)]
        return optimizer.stateless_apply(inner, gradients, trained)

    passes, step = jax.jit(pure) if learner.jit_compile else pure, jax.jit(pure_apply)

    def differentiate(x: Any, y: Any) -> Any:
        scale = optimizer.scale_loss(jax.numpy.ones(()))
        outputs, moved = passes(read(learner.trainable_variables), read(learner.non_trainable_variables), scale, x, y)
        if training:
            for variable, value in zip(learner.non_trainable_variables, moved, strict=True):
                variable.assign(value)
        return outputs

    def apply(weights: Any, own: Any, by_task: Any, beside: Any) -> None:
        scale = optimizer.scale_loss(jax.numpy.ones(()))
        trained, inner = read(learner.trainable_variables), read(optimizer.variables)
        trained, inner = step(trained, inner, weights, own, by_task, beside, scale)
        for variable, value in zip(
            (*learner.trainable_variables, *optimizer.variables), (*trained, *inner), strict=True
        ):
            variable.assign(value)

    return differentiate, apply


BACKENDS: dict[str, Callable[..., Any]] = {"tensorflow": _tensorflow, "jax": _jax}


def _numpy(tensor: Any) -> np.ndarray:
    return np.array(tensor, np.float64)
