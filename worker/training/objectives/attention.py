"""Attention maps (Zagoruyko and Komodakis 2017, equation 2, p = 2): where the student looks, not what it sees.

A map is the mean of the squared channels at each place, over all places of length 1. The loss is the mean squared difference of
the two maps, over places and rows: weight 1000 presumes that mean. Channels are neither matched nor projected; maps of two sizes meet on
the smaller one, by average pooling of the features.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from worker.training.objectives import Needs, Setting
from worker.training.objectives._layer_pairs import OfFeatures, maps, same_size, settle

NEEDS: Needs = "features"
SMALLEST = 1e-24


class Spec(OfFeatures):
    """`layers` null: all of the student's feature maps, each with the teacher's of the same size or depth."""

    type: Literal["attention"] = "attention"
    weight: float = Field(1000.0, ge=0, le=1e6)


EXAMPLE: dict[str, Any] = {"type": "attention", "weight": 1000.0, "layers": [["conv2", "conv2"]]}


def resolve(spec: Spec, setting: Setting) -> Spec:
    """Raises Invalid where a pair names no layer or one without places."""

    def fits(teacher: tuple[int, ...], student: tuple[int, ...]) -> str | None:
        if len(teacher) == len(student) == 3:
            return None
        return f"attention needs feature maps of height, width and channels, not {list(teacher)} and {list(student)}"

    return settle(spec, setting, fits, maps)


def loss(teacher: Any, student: Any, spec: Spec) -> Any:  # noqa: ARG001
    """(): does not change where features are multiplied by a number, or their channels permuted or doubled."""
    from keras import ops

    teacher, student = same_size(teacher, student)
    return ops.mean(ops.square(attention(student) - attention(teacher)))


def attention(features: Any) -> Any:
    """(n, H·W), each row of length 1 (0 where all features are), from (n, H, W, C)."""
    from keras import ops

    places = ops.mean(ops.square(features), axis=-1)
    places = ops.reshape(places, (-1, places.shape[1] * places.shape[2]))
    squares = ops.sum(ops.square(places), axis=-1, keepdims=True)
    there = squares > SMALLEST
    return ops.where(there, places / ops.sqrt(ops.where(there, squares, ops.ones_like(squares))), 0.0 * places)
