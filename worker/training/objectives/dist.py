"""Relations instead of values (DIST; Huang et al. 2022, equations 6 to 10): T²·(β·inter + γ·intra).

inter is 1 − Pearson's correlation of student and teachers over the classes of a row, mean over the rows; intra the same over the
rows of the batch, mean over the classes. The student need not match the teachers' probabilities, only how they rank and spread, which
a strong teacher's small student can. Any student whose probabilities are an increasing linear function of the teachers' has loss 0.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.spec.base import SpecModel
from app.spec.faults import Fault, Invalid
from worker.training.objectives import Answers, Needs, Setting, only_multiclass, some_weight
from worker.training.objectives.logits import log_mean

NEEDS: Needs = "logits"
FEWEST_ROWS = 3
SMALLEST_VARIANCE = 1e-14  # below it float32 sees rounding, not variation


class Spec(SpecModel):
    type: Literal["dist"] = "dist"
    weight: float = Field(1.0, ge=0, le=1e6)
    temperature: float = Field(1.0, gt=0, le=100)
    beta: float = Field(1.0, ge=0, le=1e6)
    gamma: float = Field(1.0, ge=0, le=1e6)


EXAMPLE: dict[str, Any] = {"type": "dist", "beta": 1.0, "gamma": 1.0, "temperature": 1.0}


def resolve(spec: Spec, setting: Setting) -> Spec:
    """Raises Invalid with under three classes or rows a batch, since two numbers always correlate with ±1; and where both terms
    weigh 0."""
    only_multiclass("dist", setting)
    faults = some_weight(spec, "beta", "gamma")
    if setting.batch < FEWEST_ROWS:
        message = (
            f"dist correlates over the rows of a batch and needs at least {FEWEST_ROWS}, there are {setting.batch}"
        )
        faults.append(Fault("/type", message, "raise training.batch_size"))
    if faults:
        raise Invalid(faults)
    return spec


def loss(answers: Answers, spec: Spec) -> Any:
    """(): between 0 and 2·(β + γ)·T², 0 where the student's probabilities follow the teachers' linearly."""
    inter, intra = parts(answers, spec.temperature)
    return spec.temperature**2 * (spec.beta * inter + spec.gamma * intra)


def parts(answers: Answers, T: float) -> tuple[Any, Any]:
    """(inter, intra), both scalars, without T²."""
    from keras import ops

    q = ops.exp(log_mean([ops.log_softmax(teacher / T, axis=-1) for teacher in answers.teachers], answers.weights))
    p = ops.softmax(answers.student / T, axis=-1)
    return ops.mean(1 - correlation(p, q, axis=1)), ops.mean(1 - correlation(p, q, axis=0))


def correlation(first: Any, second: Any, axis: int) -> Any:
    """Pearson's, along `axis`; 0 and without a gradient where either side is constant."""
    from keras import ops

    first, second = (x - ops.mean(x, axis=axis, keepdims=True) for x in (first, second))
    ours, theirs = (ops.mean(ops.square(x), axis=axis) for x in (first, second))
    varies = ops.logical_and(ours > SMALLEST_VARIANCE, theirs > SMALLEST_VARIANCE)
    norm = ops.sqrt(ops.where(varies, ours, ops.ones_like(ours))) * ops.sqrt(
        ops.where(varies, theirs, ops.ones_like(theirs))
    )
    dots = ops.mean(first * second, axis=axis)
    return ops.where(varies, dots / norm, ops.zeros_like(dots))
