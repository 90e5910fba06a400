"""The pairs of layers that an objective compares: those of a spec, checked, or sensible ones found automatically."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from app.spec.base import SpecModel
from app.spec.faults import Fault, Invalid, nearest
from worker.training.objectives import Setting, Trunk

LayerName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Pair = Annotated[list[LayerName], Field(min_length=2, max_length=2)]
Pairs = Annotated[list[Pair], Field(min_length=1, max_length=16)]
LAYERS = "pairs [teacher's layer, student's layer]; null: found automatically"

Fits = Callable[[tuple[int, ...], tuple[int, ...]], str | None]
"""The fault of a pair of shapes (teacher's, student's), or None."""


class OfFeatures(SpecModel):
    """What every objective on features has: `layers`, pairs [teacher's layer, student's layer]."""

    layers: Pairs | None = Field(None, description=LAYERS)


def any_two(teacher: tuple[int, ...], student: tuple[int, ...]) -> None:
    """Rows are compared among themselves: no pair is wrong."""


def settle(spec: Any, setting: Setting, fits: Fits, automatic: Callable[[Setting], list[list[str]]]) -> Any:
    """`spec` with `layers` filled in. Raises Invalid with every pair that names no layer or does not fit."""
    if not setting.student or not setting.teacher:
        return spec
    given = spec.layers
    pairs = automatic(setting) if given is None else given
    if not pairs:
        none = "there are no two layers that this objective can compare"
        raise Invalid([Fault("/layers", none, f"name pairs, of the teacher's {_list_names(setting.teacher)}")])
    faults: list[Fault] = []
    for number, (theirs, ours) in enumerate(pairs):
        at = f"/layers/{number}"
        absent = [
            Fault(f"{at}/{place}", f"the {who} has no such layer", nearest(name, layers, "layers"), "unknown_name")
            for place, who, name, layers in (
                (0, "teacher", theirs, setting.teacher),
                (1, "student", ours, setting.student),
            )
            if name not in layers
        ]
        wrong = None if absent else fits(tuple(setting.teacher[theirs]), tuple(setting.student[ours]))
        if wrong is not None:
            faults.append(Fault(at, wrong, "name another pair, or leave `layers` out"))
        faults += absent
    if faults:
        raise Invalid(faults)
    return spec.model_copy(update={"layers": [list(pair) for pair in pairs]})


def last(setting: Setting) -> list[list[str]]:
    """The last points: the embeddings on which the heads stand."""
    if not setting.teacher_points or not setting.student_points:
        return []
    return [[setting.teacher_points[-1], setting.student_points[-1]]]


def maps(setting: Setting) -> list[list[str]]:
    """Each of the student's feature maps with one of the teacher's: the last of the same size, else the one as deep in proportion."""
    theirs = [name for name in setting.teacher_points if len(setting.teacher[name]) == 3]
    ours = [name for name in setting.student_points if len(setting.student[name]) == 3]
    return _aligned(theirs, ours, setting)


def middle(setting: Setting) -> list[list[str]]:
    """One pair from half-way: of feature maps where both have some, else of dense layers."""
    pairs = maps(setting)
    if not pairs:
        theirs = [name for name in setting.teacher_points if len(setting.teacher[name]) == 1]
        ours = [name for name in setting.student_points if len(setting.student[name]) == 1]
        pairs = _aligned(theirs, ours, setting)
    return [pairs[len(pairs) // 2]] if pairs else []


def pooled(features: Any, sides: tuple[int, int]) -> Any:
    """Feature maps (n, H, W, C) averaged down to (n, h, w, C), as adaptive average pooling divides them (RepDistiller's AT)."""
    import numpy as np
    from keras import ops

    for axis, (before, after) in enumerate(zip(features.shape[1:3], sides, strict=True), 1):
        if before != after:
            share = np.zeros((after, before), np.float32)
            for place in range(after):
                start, end = place * before // after, -(-(place + 1) * before // after)
                share[place, start:end] = 1 / (end - start)
            moved = ops.tensordot(features, ops.cast(share, features.dtype), axes=[[axis], [1]])
            features = ops.moveaxis(moved, -1, axis)
    return features


def same_size(teacher: Any, student: Any) -> tuple[Any, Any]:
    """Both on the smaller height and width of the two; features that are no maps as they are."""
    if len(teacher.shape) != 4:
        return teacher, student
    sides = min(teacher.shape[1], student.shape[1]), min(teacher.shape[2], student.shape[2])
    return pooled(teacher, sides), pooled(student, sides)


def flat(features: Any) -> Any:
    """(n, d) from (n, …)."""
    from keras import ops

    return features if len(features.shape) == 2 else ops.reshape(features, (-1, prod(features.shape[1:])))


def _aligned(theirs: list[str], ours: list[str], setting: Setting) -> list[list[str]]:
    if not theirs:
        return []
    pairs = []
    for number, name in enumerate(ours):
        equal = [
            candidate for candidate in theirs if setting.teacher[candidate][:-1] == setting.student[name][:-1] != ()
        ]
        deep = theirs[max(0, round((number + 1) * len(theirs) / len(ours)) - 1)]
        pairs.append([equal[-1] if equal else deep, name])
    return pairs


def _list_names(layers: Trunk) -> str:
    return ", ".join(list(layers)[:20])
