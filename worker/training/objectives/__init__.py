"""Losses of a student against its teachers: one module for each objective, found by its file's name.

A module has `Spec` (its fields, with `type` and `weight`), `EXAMPLE`, `NEEDS`, `resolve(spec, setting)` and `loss(…)`: as
in `LogitObjective` where it needs logits, as in `FeatureObjective` where it needs outputs of named layers. It may have
`factor(spec, epoch, epochs)`, which multiplies its weight. Keras is imported only inside functions, so that the API can
read specs without it. The room may import `app.spec`, and no other room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from app.spec import tasks
from app.spec.faults import Fault, Invalid
from app.spec.tasks import TaskType

Needs = Literal["logits", "features"]
Trunk = Mapping[str, tuple[int, ...]]
"""A trunk's layers in order, each with the shape of its output, without the batch."""

WEIGHT_OF_LOGITS = 0.9
"""Of `logits` beside labels of weight 0.1."""


@dataclass(frozen=True)
class Setting:
    """All that an objective may know while its spec is resolved.

    `units` of the head; `epochs` null where the budget is in steps; `batch`: rows of a batch at most. `points`: the ends of
    the blocks of student's and teachers' trunks (empty where not known), of which automatic pairs are made.
    """

    head: TaskType
    units: int = 3
    epochs: int | None = None
    batch: int = 64
    student: Trunk = field(default_factory=dict)
    teacher: Trunk = field(default_factory=dict)
    student_points: Sequence[str] = ()
    teacher_points: Sequence[str] = ()


@dataclass(frozen=True)
class Answers:
    """The outputs of student and teachers for the rows of a batch, and the labels.

    student: (n, units) logits, through which gradients flow. teachers: one (n, units) array of logits each; no gradient
    reaches them. weights: one a teacher, divided by their sum. labels: as `heads.targets` gives them; labelled: (n,), 0
    where a row has no label.
    """

    head: TaskType
    student: Any
    teachers: Sequence[Any]
    weights: Sequence[float]
    labels: Any = None
    labelled: Any = None


@runtime_checkable
class LogitObjective(Protocol):
    """The face of a module that needs logits."""

    Spec: Any
    EXAMPLE: dict[str, Any]
    NEEDS: Needs

    def resolve(self, spec: Any, setting: Setting) -> Any:
        """`spec` with every default for this setting filled in.

        Raises:
            app.spec.faults.Invalid: the setting does not go with it; pointers start at the objective.
        """

    def loss(self, answers: Answers, spec: Any) -> Any:
        """One number a row, (n,), or one of the whole batch, (); not yet multiplied by the objective's weight."""


@runtime_checkable
class FeatureObjective(Protocol):
    """The face of a module that needs features; its `Spec` has `layers`, and may have `projector`."""

    Spec: Any
    EXAMPLE: dict[str, Any]
    NEEDS: Needs

    def resolve(self, spec: Any, setting: Setting) -> Any:
        """As of a `LogitObjective`; `layers` names every pair."""

    def loss(self, teacher: Any, student: Any, spec: Any) -> Any:
        """One number of one pair of layers: (n, …) features, the student's through its projector where there is one.

        The values of several pairs are added up. No gradient reaches the teacher's.
        """


def factor(module: Any, spec: Any, epoch: int, epochs: int) -> float:
    """The factor of the objective's weight in an epoch (from 0) of `epochs`: 1, except where an objective warms up."""
    own = getattr(module, "factor", None)
    return 1.0 if own is None else float(own(spec, epoch, epochs))


def only_multiclass(what: str, setting: Setting) -> None:
    """Raises Invalid where the head is no softmax of at least three classes."""
    if tasks.of(setting.head).OUTPUT != "softmax" or setting.units < 3 or tasks.on_map(setting.head):
        raise Invalid(
            [
                Fault(
                    "/type",
                    f"{what} needs one answer a row among three classes or more, this head is {setting.head} of {setting.units}",
                    "use `logits`",
                )
            ]
        )


def some_weight(spec: Any, *terms: str) -> list[Fault]:
    """A fault where all terms of an objective have weight 0, so that nothing could be learnt from it."""
    if any(getattr(spec, term) for term in terms):
        return []
    both = " and ".join(terms)
    return [Fault(f"/{terms[0]}", f"{both} are both 0: nothing is left of {spec.type}", "give one of them a weight")]


def standardised(logits: Any) -> Any:
    """(x − mean) / standard deviation of each row, ddof 0 (Sun et al. 2024, equation 9, which leaves ddof open).

    A row whose logits are all equal gives zeros and no gradient. (n, C) from (n, C).
    """
    from keras import ops

    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    spread = variance > SMALLEST_VARIANCE
    return ops.where(spread, centred / ops.sqrt(ops.where(spread, variance, ops.ones_like(variance))), 0.0 * centred)


SMALLEST_VARIANCE = 1e-12
