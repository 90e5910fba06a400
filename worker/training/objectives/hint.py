"""Hints (FitNets; Romero et al. 2015, equation 3): a layer of the student, projected, follows one of the teacher's.

The squared error of features, mean over rows, places and channels. The projector is a dense layer over the channels (on feature maps a
1×1 convolution), trained with the student and thrown away after it. Maps of two sizes meet on the smaller one, by average pooling.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from worker.training.objectives import Needs, Setting
from worker.training.objectives._layer_pairs import OfFeatures, middle, same_size, settle

NEEDS: Needs = "features"


class Spec(OfFeatures):
    """`layers` null: one pair from half-way. `projector` none: both layers are equally wide."""

    type: Literal["hint"] = "hint"
    weight: float = Field(100.0, ge=0, le=1e6)
    projector: Literal["auto", "none"] = "auto"


EXAMPLE: dict[str, Any] = {"type": "hint", "weight": 100.0, "layers": [["conv2", "conv2"]]}


def resolve(spec: Spec, setting: Setting) -> Spec:
    """Raises Invalid where a pair names no layer, mixes maps with vectors, or has two widths and no projector."""

    def fits(teacher: tuple[int, ...], student: tuple[int, ...]) -> str | None:
        if len(teacher) != len(student):
            return f"a layer of shape {list(student)} cannot follow one of shape {list(teacher)}"
        if spec.projector == "none" and teacher[-1] != student[-1]:
            return f"without a projector a layer {student[-1]} wide cannot follow one {teacher[-1]} wide"
        return None

    return settle(spec, setting, fits, middle)


def loss(teacher: Any, student: Any, spec: Spec) -> Any:  # noqa: ARG001
    """(): 0 where the (projected) features are equal."""
    from keras import ops

    teacher, student = same_size(teacher, student)
    return ops.mean(ops.square(student - teacher))
