"""What a student learns from its teachers: one module an objective, found by its file's name.

A module has `Spec` (its words, with `type` and `weight`), `EXAMPLE`, `resolve(spec, head)` and `loss(…)` as in
`Objective`. Keras is imported only inside functions, so that the API can read the words without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

Head = Literal["multiclass", "binary", "multilabel", "regression"]


@runtime_checkable
class Objective(Protocol):
    """The face of an objective's module."""

    Spec: Any
    EXAMPLE: dict[str, Any]

    def resolve(self, spec: Any, head: Head) -> Any:
        """`spec` with every default for this head filled in.

        Raises:
            app.spec.faults.Invalid: the head does not go with it; pointers start at the objective.
        """

    def loss(self, student: Any, teachers: Sequence[Any], weights: Sequence[float], head: Head, spec: Any) -> Any:
        """One number a row, not yet multiplied by the objective's weight: (n,), in the dtype of `student`.

        Args:
            student: (n, units) logits; gradients flow through it.
            teachers: one (n, units) array of logits a teacher; no gradient reaches them.
            weights: one a teacher; they are divided by their sum.
            spec: a resolved one.
        """
