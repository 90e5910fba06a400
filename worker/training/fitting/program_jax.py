"""Many optimizer steps in one call, on JAX: the state goes out of Keras's variables once a call, and back into them at its end.

Around Keras's own stateless `train_step` stands one of two drivers. "while": one compiled loop whose length is an input. "host": the
compiled step, once for each batch, whose logged values nobody waits for before the call's end. However a fit is cut into calls, every
step is computed by the same executable, so its bits are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import numpy as jnp
from keras import tree

from worker.training.fitting import rates
from worker.training.fitting.program import DRAWN, MOST_STEPS, PRESENT, RATE, Driver, filled

if TYPE_CHECKING:
    from worker.training.data.batches import Batch


class Program:
    """Of one learner, a `fitting.learner.Learner` as it is compiled: none of its layers is frozen or trained later on.

    `driver`: "while" or "host". Has the face of `program.Program`.
    """

    def __init__(self, learner: Any, driver: Driver):
        self._learner, self._names = learner, list(learner.parts)
        kinds = learner.trainable_variables, learner.non_trainable_variables, learner.optimizer.variables
        self._variables = [variable for some in kinds for variable in some]
        self._ends = [len(kinds[0]), len(kinds[0]) + len(kinds[1])]
        places = {id(variable): place for place, variable in enumerate(self._variables)}
        weighting = learner.weighting
        size = (len(learner.loss_spec.tasks),)
        of_weighting = [] if weighting is None else weighting.variables
        self._held = [places[id(variable)] for variable in of_weighting if tuple(variable.shape) == size]
        self._drawn = places.get(id(getattr(weighting, "drawn", None)))
        self._rate = places[id(rates.plain(learner.optimizer).learning_rate)]
        self._one, self._many = jax.jit(self._step, donate_argnums=0), jax.jit(self._loop, donate_argnums=0)
        self._run = {"host": self._by_host, "while": self._by_loop}[driver]

    def run(self, batches: Batch, beside: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
        """A step for each of n batches, 1 ≤ n ≤ MOST_STEPS, up to the first whose loss is not finite; the logged values of each that was
        done.

        `batches`: (n, …) of each array. `beside`: RATE (n,), each step's; where there is a weighting PRESENT (n, K) bool, the tasks that
        have a loss in it; DRAWN (n, …), what it drew. Behind a loss that is not finite the variables may hold the state of a later step.
        """
        state, logs = self._run([variable.value for variable in self._variables], (*batches, beside))
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(value)
        return [dict(zip(self._names, row, strict=True)) for row in logs.tolist()]

    def _by_host(self, state: list[Any], given: Any) -> tuple[list[Any], np.ndarray]:
        rows = list[Any]()
        for number in range(_count(given)):
            state, row = self._one(state, tree.map_structure(lambda array: array[number], given))  # noqa: B023 - called at once
            rows.append(row)
        logs = np.stack([np.asarray(row) for row in rows])
        failed = np.flatnonzero(~np.isfinite(logs[:, self._names.index("loss")]))
        return state, logs[: failed[0] + 1] if len(failed) else logs

    def _by_loop(self, state: list[Any], given: Any) -> tuple[list[Any], np.ndarray]:
        # One shape, and so one executable, whatever the number of steps; the loop reads none of the rest.
        whole = tree.map_structure(lambda array: filled(array, MOST_STEPS), given)
        state, logs, done = self._many(state, whole, np.int32(_count(given)))
        return state, np.asarray(logs)[: int(done)]

    def _loop(self, state: list[Any], given: Any, count: Any) -> tuple[list[Any], Any, Any]:
        """The state after `count` steps or the first whose loss is not finite, the logged values (MOST_STEPS, names), the steps done."""
        loss = self._names.index("loss")

        def goes_on(carry: Any) -> Any:
            number, finite, _, _ = carry
            return (number < count) & finite

        def step(carry: Any) -> Any:
            number, _, state, logs = carry
            state, row = self._step(state, tree.map_structure(lambda array: array[number], given))
            return number + 1, jnp.isfinite(row[loss]), state, logs.at[number].set(row)

        logs = jnp.zeros((MOST_STEPS, len(self._names)), "float32")
        done, _, state, logs = jax.lax.while_loop(goes_on, step, (np.int32(0), np.True_, state, logs))
        return state, logs, done

    def _step(self, state: Sequence[Any], given: Any) -> tuple[list[Any], Any]:
        """The state after one step by Keras's `train_step`, that of absent tasks held, and its logged values, (names,) float32."""
        x, y, beside = given
        before, (first, second) = list(state), self._ends
        before[self._rate] = beside[RATE]
        if self._drawn is not None:
            before[self._drawn] = beside[DRAWN]
        # A metric's mean over one step is the value itself.
        metrics = [jnp.zeros(variable.shape, variable.dtype) for variable in self._learner.metrics_variables]
        told, parts = self._learner.train_step((before[:first], before[first:second], before[second:], metrics), (x, y))
        after = [value for some in parts[:3] for value in some]
        for place in self._held:
            after[place] = jnp.where(beside[PRESENT], after[place], before[place])
        return after, jnp.stack([jnp.asarray(told[name], "float32") for name in self._names])


def _count(given: Any) -> int:
    return len(tree.flatten(given)[0])
