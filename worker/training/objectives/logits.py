"""Soft targets (Hinton, Vinyals and Dean 2015, section 2): the student's softened outputs follow the teachers'.

T² times the divergence of the student from the teachers' mean at temperature T, so that gradients keep their size as
T grows; the T² is inside. Softmax heads: over the classes. Sigmoid heads: each label is a pair of classes of its own,
and a row's loss is the mean over its labels, as its label loss is. Regression: the squared error of standardised
outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec import tasks
from app.spec.base import SpecModel
from app.spec.faults import Fault, Invalid
from app.spec.registry import module
from worker.training.objectives import WEIGHT_OF_LOGITS, Answers, Needs, Setting

NEEDS: Needs = "logits"
TEMPERATURE = 4.0
FEATURES = 'use an objective on features, as in "objectives": [{"type": "relational"}]'


class Spec(SpecModel):
    """`temperature` null: 4; regression has none. Beyond 100 softened outputs differ by less than float32 can tell."""

    type: Literal["logits"] = "logits"
    weight: float = Field(WEIGHT_OF_LOGITS, ge=0, le=1e6)
    temperature: float | None = Field(None, gt=0, le=100)


EXAMPLE: dict[str, Any] = {"type": "logits", "weight": 0.9, "temperature": 4.0}


def resolve(spec: Spec, setting: Setting) -> Spec:
    """The spec with its temperature. Raises Invalid where one is given and the head has none."""
    soft = tasks.of(setting.head).SOFT_TARGETS
    if soft is None:
        raise Invalid([Fault("/type", f"heads of type {setting.head} have no soft targets", FEATURES)])
    if soft == "plain":
        if spec.temperature is not None:
            raise Invalid(
                [Fault("/temperature", f"a {setting.head} head has no temperature", "leave `temperature` out")]
            )
        return spec
    return spec.model_copy(update={"temperature": spec.temperature or TEMPERATURE})


def loss(answers: Answers, spec: Spec) -> Any:
    """(n,): never negative, 0 where the student's outputs are the teachers' mean.

    Several teachers: the target is the weighted mean of their softened *probabilities* (of their outputs in
    regression). The gradient in a softmax row is T·(p − q), p the student's and q the target's probabilities at T.
    """
    compare = module("training.tasks", answers.head).divergence
    return compare(answers.student, answers.teachers, answers.weights, spec.temperature or TEMPERATURE)


def divergence(student: Any, teachers: Sequence[Any], weights: Sequence[float], temperature: float) -> Any:
    """T²·KL(mean of the teachers' softmax ‖ the student's softmax), (n,) from (n, C) logits."""
    from keras import ops

    log_p = ops.log_softmax(student / temperature, axis=-1)
    log_q = log_mean([ops.log_softmax(teacher / temperature, axis=-1) for teacher in teachers], weights)
    return not_negative(temperature**2 * ops.sum(ops.exp(log_q) * (log_q - log_p), axis=-1))


def binary_divergence(student: Any, teachers: Sequence[Any], weights: Sequence[float], temperature: float) -> Any:
    """T²·KL of each label's Bernoulli distribution, mean over the labels: (n,) from (n, L) logits."""
    from keras import ops

    each = 0.0
    for sign in (1.0, -1.0):
        log_p = ops.log_sigmoid(sign * student / temperature)
        log_q = log_mean([ops.log_sigmoid(sign * teacher / temperature) for teacher in teachers], weights)
        each = each + ops.exp(log_q) * (log_q - log_p)
    return not_negative(ops.mean(temperature**2 * each, axis=-1))


def squared_error(student: Any, teachers: Sequence[Any], weights: Sequence[float]) -> Any:
    """Squared distance from the teachers' weighted mean, mean over the outputs: (n,) from (n, d)."""
    from keras import ops

    mean = sum(share * teacher for teacher, share in zip(teachers, shares(weights), strict=True))
    return ops.mean(ops.square(student - ops.stop_gradient(mean)), axis=-1)


def log_mean(log_each: Sequence[Any], weights: Sequence[float]) -> Any:
    """log Σ wᵢ·exp(log_eachᵢ), without a gradient. Of one teacher exactly its own: equal logits give exactly 0."""
    from keras import ops

    weighted = [(log, share) for log, share in zip(log_each, shares(weights), strict=True) if share > 0]
    return ops.stop_gradient(ops.logsumexp(ops.stack([log + math.log(share) for log, share in weighted]), axis=0))


def shares(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    if not total > 0 or min(weights) < 0:
        raise ValueError(f"teacher weights: expected numbers of at least 0, not all 0; received {list(weights)}")
    return [weight / total for weight in weights]


def not_negative(value: Any) -> Any:
    """`value` without the rounding that takes a divergence just below 0; its gradient is untouched."""
    from keras import ops

    return value + ops.stop_gradient(ops.maximum(value, 0.0) - value)
