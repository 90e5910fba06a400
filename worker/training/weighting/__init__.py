"""How the losses of several tasks become one: one module for each weighting, found by its file's name.

A module has `Spec` (its fields, with `name`), `EXAMPLE` and `Weighting`, a `TaskWeighting`. Keras is imported only
inside functions, so that the API can read specs without it. The room may import `app.spec`, and no other room.

What happens, in this order: `build(learner)` once, before the learner is built; `start(first_losses)` at the start of a
fresh fit (a resumed one restores `variables` instead); before each step `draw(seed, number)`, put into `drawn`; the step itself,
within `hold(absent)`; `after_step` where `second_forward` asks for it; `on_epoch_end` after each epoch. In a step a weighting of
level "loss" is called inside `compute_loss`; one of level "gradient" computes in `weigh` the factors of the tasks' gradients, in
NumPy and float64. All state is in `variables`, so that a checkpoint has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class GradientStatistics:
    """One step as a weighting of level "gradient" sees it: k tasks that have a labelled row in the batch, no others.

    `gram` (k, k): dot products of their gradients on what the tasks share; `last` (k, k): on its last layer alone.
    `losses` (k,); `places` (k,): which of the job's tasks they are. (`seed`, `number`): the run's seed and the step's
    number, for what is drawn.
    """

    gram: Numbers
    last: Numbers
    losses: Numbers
    places: NDArray[np.int64]
    seed: int = 0
    number: int = 0


class TaskWeighting:
    """Combines K losses, in the order of `tasks` (a name → its `weight` in the spec).

    A task without labels in a batch is left out: it adds nothing to the total, and its state stays as it was.
    """

    level: ClassVar[Literal["loss", "gradient"]] = "loss"
    second_forward: ClassVar[bool] = False
    uses_task_weights: ClassVar[bool] = False
    """Whether a task's `weight` may differ from 1."""
    weighs_heads: ClassVar[bool] = False
    """Level "gradient": whether layers that tasks do not share are weighed as well; else they get each task's plain gradient."""

    drawn: Any
    """The variable, among `variables`, that holds what was drawn for the step; only where `draw` draws."""

    def __init__(self, spec: Any, tasks: Mapping[str, float]):
        self.spec = spec
        self.tasks = tuple(tasks)
        self.task_weights = tuple(float(weight) for weight in tasks.values())
        self.built = False
        self.variables: list[Any] = []

    @classmethod
    def least_epochs(cls, spec: Any) -> int:  # noqa: ARG003 - most weightings weigh from the first step
        """The fewest epochs of a job in which this weighting has any effect: a shorter job is all warm-up."""
        return 1

    def build(self, learner: Any) -> None:  # noqa: ARG002 - most weightings have no state
        """Makes the state with `learner.add_weight`, listed in `variables`; the optimizer trains what is trainable."""
        self.built = True

    def start(self, first_losses: Mapping[str, float]) -> None:
        """The first loss of each task, before any step. Raises ValueError where one is missing and needed."""

    def draw(self, seed: int, number: int) -> NDArray[np.float32] | None:  # noqa: ARG002
        """The random numbers of step `number` (from 0) of the fit with run seed `seed`, which depend on these two alone; None: none."""
        return None

    def before_step(self, seed: int, number: int) -> None:
        """Step `number` (from 0) of the fit with run seed `seed` comes next: what it draws is put into `drawn`.

        A weighting that does something else here, or has a `hold` of its own, has a call for each step.
        """
        drawn = self.draw(seed, number)
        if drawn is not None:
            self.drawn.assign(drawn)

    def __call__(self, losses: Mapping[str, Any], present: Mapping[str, Any]) -> Any:
        """The total of scalar losses by task; `present` says which tasks have a labelled row in the batch."""
        return self.combine(*self._stacked(losses, present))

    def parts_by_task(self, losses: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
        """Each task's part of the total, for the log."""
        parts = self.parts(*self._stacked(losses, present))
        return {task: parts[k] for k, task in enumerate(self.tasks)}

    def weights_in_use(self, losses: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
        """The factor of each task's gradient, for the log."""
        weights = self.in_use(*self._stacked(losses, present))
        return {task: weights[k] for k, task in enumerate(self.tasks)}

    def combine(self, losses: Any, present: Any) -> Any:
        """The scalar total. `losses` (K,) must not be read where `present` (K,) is false: it may be any number there."""
        from keras import ops

        return ops.sum(self.parts(losses, present))

    def parts(self, losses: Any, present: Any) -> Any:
        """Each task's part of the total, (K,): 0 for a task left out."""
        raise NotImplementedError

    def in_use(self, losses: Any, present: Any) -> Any:
        """∂ total / ∂ losses, (K,): 0 for a task left out."""
        raise NotImplementedError

    def weigh(self, statistics: GradientStatistics) -> Numbers:
        """Level "gradient": the factors of the gradients of the tasks that are present, (k,)."""
        raise NotImplementedError

    def after_step(self, before: Numbers, after: Numbers, present: NDArray[np.bool_]) -> None:
        """The losses (K,) of one batch before and after the update, where `second_forward` asks for them.

        Both in inference mode: dropout or BatchNorm would make a difference that the update did not.
        """

    def on_epoch_end(self, epoch: int, mean_losses: Mapping[str, float]) -> None:
        """Each task's mean training loss over the epoch (counted from 0); a task that had no label in it is missing."""

    @contextmanager
    def hold(self, absent: Sequence[str]) -> Iterator[None]:
        """Around a step: keeps the state of the tasks in `absent`.

        A zero gradient is not enough: Adam's momentum goes on moving the state. Costs nothing where `absent` is
        empty.
        """
        left_out = [k for k, task in enumerate(self.tasks) if task in absent]
        per_task = [variable for variable in self.variables if left_out and tuple(variable.shape) == (len(self.tasks),)]
        before = [numbers(variable) for variable in per_task]
        yield
        for variable, old in zip(per_task, before, strict=True):
            now = numbers(variable)
            now[left_out] = old[left_out]
            variable.assign(now)

    def state(self, learner: Any, name: str, initial: float = 0.0, *, trainable: bool = False) -> Any:
        """A number for each task, (K,), among `variables`: for `build`."""
        variable = learner.add_weight(
            shape=(len(self.tasks),),
            initializer=_constant(initial),
            dtype="float32",
            trainable=trainable,
            name=f"{self.spec.name}_{name}",
        )
        self.variables.append(variable)
        return variable

    def _stacked(self, losses: Mapping[str, Any], present: Mapping[str, Any]) -> tuple[Any, Any]:
        from keras import ops

        return ops.stack([losses[task] for task in self.tasks]), ops.stack([present[task] for task in self.tasks])


def only(present: Any, values: Any, otherwise: float = 0.0) -> Any:
    """`values` (K,) of the tasks that are present, `otherwise` for the rest: no value and no gradient gets through."""
    from keras import ops

    return ops.where(present, values, ops.full_like(values, otherwise))


def shares(present: Any, scores: Any) -> Any:
    """softmax of `scores` (K,) over the tasks that are present; 0 for the rest, and for all where none is."""
    from keras import ops

    highest = ops.max(ops.where(present, scores, ops.full_like(scores, -1e30)))
    # Scores that are left out are replaced before the exponential, which then cannot overflow.
    raised = only(present, ops.exp(ops.where(present, scores, highest) - highest))
    return raised / ops.maximum(ops.sum(raised), 1e-30)


def count(present: Any, like: Any) -> Any:
    """How many tasks are present, as a number of the kind of `like`."""
    from keras import ops

    return ops.sum(ops.cast(present, like.dtype))


def value(variable: Any, like: Any) -> Any:
    """A variable's value inside a step, as numbers of the kind of `like`."""
    from keras import ops

    return ops.cast(ops.convert_to_tensor(variable), like.dtype)


def numbers(variable: Any) -> NDArray[Any]:
    """A variable's value outside a step: a copy that no later step writes to."""
    return np.asarray(variable).copy()


def _constant(value: float) -> Any:
    from keras import initializers

    return initializers.Constant(value)
