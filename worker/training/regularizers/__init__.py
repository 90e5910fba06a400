"""Penalties that hold a fine-tuned network near to its source, or its features apart: one module each, found by its file's name.

A module has `Spec` (its fields, with `name`), `EXAMPLE`, `resolve(spec, about)` and `Term`, a `Regularizer`. Keras is imported only
inside functions, so that the API can read specs without it. The room may import `app.spec`, and no other room.

The learner calls `build(learner)` once, before it is built; `start(weights)` at the beginning of every phase of a fit (of a resumed fit
too), with the numbers at the beginning of the *fit*; and the term itself inside `compute_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class About:
    """The facts that a regularizer's `resolve` may use. `width`: of the trunk's features; `optimizer`, `rate`: of the whole network.

    `head_rate`: of the head while it learns alone, 0 where it never does.
    """

    strategy: str
    width: int
    batch_size: int
    optimizer: str
    rate: float
    head_rate: float = 0.0


class Regularizer:
    """Terms that are added to the loss.

    `names`: what they are logged as. `features`: whether they are of the trunk's output.
    """

    names: ClassVar[tuple[str, ...]]
    features: ClassVar[bool] = False

    def __init__(self, spec: Any, trunk: Mapping[str, Any], head: Mapping[str, Any]):
        """The layers of trunk and head by name. Which of their variables are trained is settled by then."""
        self.spec, self.trunk, self.head = spec, trunk, head

    def build(self, learner: Any) -> None:
        """Makes its variables with `learner.add_weight`; none of them is trained or saved."""

    def start(self, weights: Mapping[str, Any]) -> None:
        """The arrays of each layer as the fit began with them."""

    def __call__(self, features: Any) -> dict[str, Any]:
        """{name: scalar, as it is added}. `features`: (batch, width), None unless asked for."""
        raise NotImplementedError
