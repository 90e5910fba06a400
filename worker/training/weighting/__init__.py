"""How the losses of several tasks become one: one module a weighting, found by its file's name.

A module has `Spec` (its words, with `name`), `EXAMPLE` and `Weighting`, a `TaskWeighting`. Keras is imported only
inside functions, so that the API can read the words without it.

What the learner does, in this order: `build(learner)` once, before the learner is built; `start(first_losses)` at the
start of a fresh fit (a resumed one restores `variables` instead); each step `weighting(losses, present)` inside
`compute_loss`, and the step itself within `hold(absent)`; `on_epoch_end` after each epoch. A weighting of level
"gradient" gets per-task gradients through `combine_gradients`; one with `second_forward` gets the losses after the
update through `after_step`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray


class TaskWeighting:
    """Combines K losses, in the order of `tasks` (a name → its `weight` in the spec).

    A task without labels in a batch is left out: it adds nothing to the total, and its state stays as it was.
    """

    level: ClassVar[Literal["loss", "gradient"]] = "loss"
    second_forward: ClassVar[bool] = False
    uses_task_weights: ClassVar[bool] = False
    """Whether a task's `weight` may differ from 1."""

    def __init__(self, spec: Any, tasks: Mapping[str, float]):
        self.spec = spec
        self.tasks = tuple(tasks)
        self.task_weights = tuple(float(weight) for weight in tasks.values())
        self.built = False
        self.variables: list[Any] = []

    def build(self, learner: Any) -> None:  # noqa: ARG002 - most weightings have no state
        """Makes the state with `learner.add_weight`, listed in `variables`; the optimizer trains what is trainable."""
        self.built = True

    def start(self, first_losses: Mapping[str, float]) -> None:
        """The first loss of each task, before any step. Raises ValueError where one is missing and needed."""

    def __call__(self, losses: Mapping[str, Any], present: Mapping[str, Any]) -> Any:
        """The total of scalar losses by task; `present` says which tasks have a labelled row in the batch."""
        return self.combine(*self._stacked(losses, present))

    def weights_in_use(self, losses: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
        """What multiplies each task's gradient, for the log."""
        weights = self.in_use(*self._stacked(losses, present))
        return {task: weights[k] for k, task in enumerate(self.tasks)}

    def combine(self, losses: Any, present: Any) -> Any:
        """The scalar total. `losses` is (K,), any number where `present` (K,) is false: there it must not be read."""
        raise NotImplementedError

    def in_use(self, losses: Any, present: Any) -> Any:
        """∂ total / ∂ losses, (K,): 0 for a task left out."""
        raise NotImplementedError

    def combine_gradients(self, gradients: Any, losses: Any, present: Any) -> Any:
        """One gradient (P,) from the tasks' (K, P)."""
        from keras import ops

        return ops.matmul(self.in_use(losses, present), gradients)

    def after_step(self, before: Any, after: Any, present: Any) -> None:
        """The losses (K,) of one batch before and after the update, where `second_forward` asks for them."""

    def on_epoch_end(self, epoch: int, mean_losses: Mapping[str, float]) -> None:
        """Each task's mean training loss over the epoch (counted from 0)."""

    @contextmanager
    def hold(self, absent: Sequence[str]) -> Iterator[None]:
        """Around a step: the state of the tasks in `absent` is afterwards as it was.

        A zero gradient is not enough: Adam goes on moving what its momentum moved. Costs nothing where `absent` is
        empty.
        """
        left_out = [k for k, task in enumerate(self.tasks) if task in absent]
        per_task = [variable for variable in self.variables if left_out and tuple(variable.shape) == (len(self.tasks),)]
        before = [_numbers(variable) for variable in per_task]
        yield
        for variable, old in zip(per_task, before, strict=True):
            now = _numbers(variable)
            now[left_out] = old[left_out]
            variable.assign(now)

    def _stacked(self, losses: Mapping[str, Any], present: Mapping[str, Any]) -> tuple[Any, Any]:
        from keras import ops

        return ops.stack([losses[task] for task in self.tasks]), ops.stack([present[task] for task in self.tasks])


def only(present: Any, values: Any, otherwise: float = 0.0) -> Any:
    """`values` (K,) of the tasks that are present, `otherwise` for the rest: no value and no gradient gets through."""
    from keras import ops

    return ops.where(present, values, ops.full_like(values, otherwise))


def _numbers(variable: Any) -> NDArray[Any]:
    """A copy that no later step writes to."""
    return np.asarray(variable).copy()
