"""Relational knowledge distillation (RKD; Park et al. 2019, equations 5 to 9): distances and angles between the rows of a batch.

Distances are divided by their mean over pairs that lie apart, so scale, shift and rotation of the embedding change nothing; angles are
the cosines at each row between every two others. Both are compared by the Huber loss (δ = 1), mean over all b² and b³ entries. Widths
may differ.
"""

from __future__ import annotations

from math import prod
from typing import Any, Literal

from pydantic import Field

from app.spec.faults import Fault, Invalid
from worker.training.objectives import Needs, Setting, some_weight
from worker.training.objectives._layer_pairs import OfFeatures, flat, last, settle

NEEDS: Needs = "features"
SMALLEST = 1e-12
MOST_ROWS = 256
"""Angles take b³ numbers: 67 MB at 256 rows."""

MOST_NUMBERS = 1 << 26
"""Differences between all rows of a batch take b² times the width."""


class Spec(OfFeatures):
    """`distance` and `angle` weigh the two terms. `layers` null: the last ones before the heads."""

    type: Literal["relational"] = "relational"
    weight: float = Field(1.0, ge=0, le=1e6)
    distance: float = Field(25.0, ge=0, le=1e6)
    angle: float = Field(50.0, ge=0, le=1e6)


EXAMPLE: dict[str, Any] = {"type": "relational", "distance": 25.0, "angle": 50.0, "layers": [["dense1", "dense1"]]}


def resolve(spec: Spec, setting: Setting) -> Spec:
    """Raises Invalid where a pair names no layer, nothing is compared, or angles between the rows of a batch would not fit into
    memory."""
    faults = some_weight(spec, "distance", "angle")
    if spec.angle and setting.batch > MOST_ROWS:
        message = f"angles between {setting.batch} rows are {setting.batch**3:,} numbers"
        faults.append(Fault("/angle", message, f"set angle: 0, or training.batch_size: {MOST_ROWS} or less"))

    def fits(teacher: tuple[int, ...], student: tuple[int, ...]) -> str | None:
        width = max(prod(teacher), prod(student))
        if setting.batch**2 * width <= MOST_NUMBERS:
            return None
        return f"differences between {setting.batch} rows of {width:,} numbers are more than the {MOST_NUMBERS:,} held"

    try:
        spec = settle(spec, setting, fits, last)
    except Invalid as invalid:
        faults += invalid.faults
    if faults:
        raise Invalid(faults)
    return spec


def loss(teacher: Any, student: Any, spec: Spec) -> Any:
    """(): 0 where the student's features are the teacher's, rotated, shifted and multiplied by a number."""
    teacher, student = flat(teacher), flat(student)
    total: Any = 0.0
    if spec.distance:
        total = total + spec.distance * huber(distances(student) - distances(teacher))
    if spec.angle:
        total = total + spec.angle * huber(angles(student) - angles(teacher))
    return total


def distances(rows: Any) -> Any:
    """(b, b) Euclidean distances over their mean where they are not 0; from (b, d)."""
    from keras import ops

    _, there, lengths = _between(rows)
    count = ops.sum(ops.cast(there, rows.dtype))
    mean = ops.sum(lengths) / ops.maximum(count, 1.0)
    return lengths / ops.where(count > 0, mean, ops.ones_like(mean))


def angles(rows: Any) -> Any:
    """(b, b, b): [i, j, k] is the cosine at row i between the directions to j and k; 0 where one of them is no direction."""
    from keras import ops

    apart, there, lengths = _between(rows)
    safe = ops.where(there, lengths, ops.ones_like(lengths))
    directions = apart / safe[:, :, None]
    return ops.matmul(directions, ops.transpose(directions, (0, 2, 1)))


def huber(difference: Any) -> Any:
    """Mean of d²/2 up to 1 and |d| − ½ beyond."""
    from keras import ops

    size = ops.abs(difference)
    return ops.mean(ops.where(size < 1, 0.5 * ops.square(difference), size - 0.5))


def _between(rows: Any) -> tuple[Any, Any, Any]:
    """(b, b, d) differences, (b, b) whether they are not 0, (b, b) lengths: 0 exactly, and without a gradient, where they are."""
    from keras import ops

    apart = rows[None, :, :] - rows[:, None, :]
    squares = ops.sum(ops.square(apart), axis=-1)
    there = squares > SMALLEST
    lengths = ops.sqrt(ops.where(there, squares, ops.ones_like(squares)))
    return apart, there, ops.where(there, lengths, ops.zeros_like(lengths))
