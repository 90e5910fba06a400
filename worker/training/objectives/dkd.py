"""Decoupled knowledge distillation (Zhao et al. 2022, equation 7): T²·(α·TCKD + β·NCKD).

TCKD is the divergence of the student's from the teachers' (target class, all others) pair at temperature T, NCKD that of the
distributions over the other classes alone. Plain soft targets are α = 1, β = 1 − p, p the teachers' probability of the target,
row by row; here β is the same for all rows, so that a sure teacher's probabilities of the other classes count too.

The target is a row's label; where it has none (unlabelled rows) the teachers' most probable class stands for it. The weight grows
from 0 over the first epochs (mdistiller: 20 of 240), a share of the run.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from app.spec.faults import Invalid
from worker.training.objectives import Answers, Needs, Setting, only_multiclass, some_weight
from worker.training.objectives.logits import log_mean, not_negative

NEEDS: Needs = "logits"
WARM_UP_SHARE = 12


class Spec(SpecModel):
    """`warmup_epochs` null: a twelfth of the epochs, 0: the full weight at once."""

    type: Literal["dkd"] = "dkd"
    weight: float = Field(1.0, ge=0, le=1e6)
    temperature: float = Field(4.0, gt=0, le=100)
    alpha: float = Field(1.0, ge=0, le=1e6)
    beta: float = Field(8.0, ge=0, le=1e6)
    warmup_epochs: float | None = Field(None, ge=0, le=1e6)


EXAMPLE: dict[str, Any] = {"type": "dkd", "alpha": 1.0, "beta": 8.0, "temperature": 4.0}


def resolve(spec: Spec, setting: Setting) -> Spec:
    """Raises Invalid unless there are at least three classes: of two, the distribution over the others is always 1; and where both
    terms weigh 0."""
    only_multiclass("dkd", setting)
    faults = some_weight(spec, "alpha", "beta")
    if faults:
        raise Invalid(faults)
    if spec.warmup_epochs is not None or setting.epochs is None:
        return spec
    return spec.model_copy(update={"warmup_epochs": setting.epochs / WARM_UP_SHARE})


def factor(spec: Spec, epoch: int, epochs: int) -> float:
    """(epoch + 1) / warm-up, at most 1."""
    warm_up = epochs / WARM_UP_SHARE if spec.warmup_epochs is None else spec.warmup_epochs
    return min(1.0, (epoch + 1) / warm_up) if warm_up > 0 else 1.0


def loss(answers: Answers, spec: Spec) -> Any:
    """(n,), T² inside: never negative, 0 where the student's outputs are the teachers' mean."""
    target, others, _ = parts(answers, spec.temperature)
    return spec.alpha * target + spec.beta * others


def parts(answers: Answers, T: float) -> tuple[Any, Any, Any]:
    """(T²·TCKD, T²·NCKD, the teachers' softened probability of the target), each (n,)."""
    from keras import ops

    log_q = log_mean([ops.log_softmax(teacher / T, axis=-1) for teacher in answers.teachers], answers.weights)
    log_p = ops.log_softmax(answers.student / T, axis=-1)
    is_target = ops.one_hot(targets(answers, log_q), log_q.shape[-1], dtype="bool")
    q_target, q_rest, q_others = _split(log_q, is_target)
    p_target, p_rest, p_others = _split(log_p, is_target)
    tckd = ops.exp(q_target) * (q_target - p_target) + ops.exp(q_rest) * (q_rest - p_rest)
    each = ops.where(is_target, ops.zeros_like(log_q), ops.exp(q_others) * (q_others - p_others))
    return not_negative(T**2 * tckd), not_negative(T**2 * ops.sum(each, axis=-1)), ops.exp(q_target)


def targets(answers: Answers, log_q: Any) -> Any:
    """(n,) class codes: the labels, and for rows without a label the teachers' most probable class."""
    from keras import ops

    likely = ops.argmax(log_q, axis=-1)
    if answers.labels is None or answers.labelled is None:
        return likely
    return ops.where(answers.labelled > 0, ops.cast(answers.labels, likely.dtype), likely)


def _split(log_p: Any, is_target: Any) -> tuple[Any, Any, Any]:
    """Logs of: the target's probability (n,), that of all others together (n,), the distribution over the others (n, C)."""
    from keras import ops

    target = ops.sum(ops.where(is_target, log_p, ops.zeros_like(log_p)), axis=-1)
    apart = ops.where(is_target, ops.full_like(log_p, -1e30), log_p)
    rest = ops.logsumexp(apart, axis=-1)
    return target, rest, ops.where(is_target, ops.zeros_like(log_p), log_p - rest[:, None])
