"""Objects on a picture: where each one is, as a box, and of which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec.base import ReportModel
from app.spec.data import Column
from app.spec.figures import TaskFigures, Undefined
from app.spec.tasks import Head, Output, SoftTargets, by_name

OUTPUT: Output = None
METRICS = ("map50",)
SOFT_TARGETS: SoftTargets = "plain"
MAP = PLACED = True
ARCHITECTURE, STUDENT = {"arch": "resnet", "depth": 14}, {"arch": "resnet", "depth": 8}

PLACES = 4
"""Outputs of a place beside the classes': the middle's offsets across and down, the logarithms of the width and the
height."""

MOST = 100
"""Boxes in an answer."""

COARSEST = 16
"""Pixels of a row, down and across, that may be one place of the map."""

CLAIMED = 0.3
"""The probability from which on a box is told."""


class BoxFigures(ReportModel):
    """One class."""

    name: str = Field(alias="class", description="the class's name")
    ap50: float | None = Field(
        description="average precision of boxes that cover at least half; null: no test row has it"
    )
    ap50_95: float | None = Field(description="mean average precision from half to 0.95 covered")
    support: int = Field(description="boxes of it on the test rows")


class BoxesFigures(TaskFigures):
    """Of a boxes task, as COCO measures it. What could not be computed is absent, and `undefined.figures` says why."""

    type: Literal["boxes"] = Field(description="the target's type")
    map50: float | None = Field(
        None,
        description="average precision of boxes whose intersection with a drawn one is at least half of their union, mean "
        "over the classes; null: no box is drawn",
    )
    map50_95: float | None = Field(None, description="mean over ten such shares, 0.50 to 0.95")
    precision: float | None = Field(
        None, description="share of the boxes told, at a probability of 0.3 or more, that are right; null: none is"
    )
    recall: float | None = Field(None, description="share of the drawn boxes that are among these")
    drawn: int | None = Field(None, description="boxes on the test rows")
    told: int | None = Field(None, description="boxes told at a probability of 0.3 or more")
    per_class: list[BoxFigures] | None = Field(None, description="in the order of the outputs")
    undefined: Undefined = Field(description="why something has no value; empty where all have one")


Figures = BoxesFigures


def accepts(column: Column) -> bool:
    return natural(column)


def natural(column: Column) -> bool:
    return column.type == "boxes"


def map_refusal(fed: Sequence[int], places: Sequence[int]) -> str | None:
    """A box is found by the place of its middle: two in one place are one."""
    if len(fed) != 3 or len(places) != 3:
        return "boxes are of pictures, and this is no map of one"
    wide = max(-(-side // count) for side, count in zip(fed[:2], places[:2], strict=True))
    if wide <= COARSEST:
        return None
    return (
        f"a place of this network's map is {wide} pixels wide, at most {COARSEST} tell boxes apart; resnet and wrn have a place for "
        "every 4 pixels"
    )


def units(column: Column) -> int:
    """Of each place of the map."""
    return len(column.classes or ()) + PLACES


def order(ours: Head, theirs: Head) -> list[int] | None:
    """The classes by name; what says where a box is comes after them."""
    classes = by_name(ours, theirs)
    return None if classes is None else [*classes, *range(len(classes), len(classes) + PLACES)]


def prediction(output: Sequence[Sequence[float]], classes: Sequence[str]) -> dict[str, Any]:
    """The edges are shares of the row's width and height; `placed` brings them to a picture."""
    return {
        "boxes": [
            {"label": classes[int(code)], "probability": probability, "box": edges}
            for *edges, probability, code in output
            if probability >= CLAIMED
        ]
    }


def placed(fields: dict[str, Any], size: Sequence[int], back: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The fields of `prediction` in pixels of the picture that was sent, cut to it.

    Args:
        size: (height, width) of that picture.
        back: ((scale, shift) of y, of x): a share of the row's side becomes scale · share + shift pixels.
    """
    (down, above), (across, before) = back
    height, width = size
    boxes = []
    for box in fields["boxes"]:
        x0, y0, x1, y1 = box["box"]
        xs = [min(max(across * x + before, 0.0), float(width)) for x in (x0, x1)]
        ys = [min(max(down * y + above, 0.0), float(height)) for y in (y0, y1)]
        boxes.append({**box, "box": [xs[0], ys[0], xs[1], ys[1]]})
    return {"boxes": [box for box in boxes if box["box"][0] < box["box"][2] and box["box"][1] < box["box"][3]]}


def meaning(classes: Sequence[str]) -> str:
    return (
        f"{MOST} boxes or fewer, the most probable first: left, top, right and bottom in shares of the picture's width and height, "
        f"probability, number of the class ({', '.join(classes[:12])}); 0 is the probability of none"
    )
