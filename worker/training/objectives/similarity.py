"""Similarity-preserving distillation (Tung and Mori 2019, equation 4): rows alike for the teacher are alike for the student.

The b×b matrix of dot products between the rows' features, each of its rows of length 1; the squared difference of the two matrices'
entries, divided by b². Widths may differ.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from worker.training.objectives import Needs, Setting
from worker.training.objectives._layer_pairs import OfFeatures, any_two, flat, last, settle

NEEDS: Needs = "features"
SMALLEST = 1e-24


class Spec(OfFeatures):
    """`layers` null: the last ones before the heads."""

    type: Literal["similarity"] = "similarity"
    weight: float = Field(3000.0, ge=0, le=1e6)


EXAMPLE: dict[str, Any] = {"type": "similarity", "weight": 3000.0, "layers": [["dense1", "dense1"]]}


def resolve(spec: Spec, setting: Setting) -> Spec:
    """Raises Invalid where a pair names no layer."""
    return settle(spec, setting, any_two, last)


def loss(teacher: Any, student: Any, spec: Spec) -> Any:  # noqa: ARG001
    """(): does not change where features are rotated or multiplied by a number."""
    from keras import ops

    return ops.mean(ops.square(gram(student) - gram(teacher)))


def gram(features: Any) -> Any:
    """(b, b) dot products of the rows, each row of length 1 (0 where all its products are), from (b, …)."""
    from keras import ops

    rows = flat(features)
    products = ops.matmul(rows, ops.transpose(rows))
    squares = ops.sum(ops.square(products), axis=-1, keepdims=True)
    there = squares > SMALLEST
    return ops.where(there, products / ops.sqrt(ops.where(there, squares, ops.ones_like(squares))), 0.0 * products)
