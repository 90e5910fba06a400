"""What the sender of a model's file says about it, and what the kept model remembers of where it came from."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from app.spec.base import Label, SpecModel, TaskName
from app.spec.intake import HIGHEST_RATE, LOWEST_RATE, Fit, Side

Scale = Literal["0..255", "0..1", "-1..1", "imagenet"]
SCALES: tuple[Scale, ...] = get_args(Scale)
"""Pixels as a network sees them. `imagenet`: of 0…1, less ImageNet's mean and divided by its deviation, channel by channel."""

Rate = Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE)]
"""Samples a second."""

MOST_CLASSES = 10_000

Classes = Annotated[list[Label], Field(min_length=1, max_length=MOST_CLASSES)]


class ImportOptions(SpecModel):
    """Other words for the same file make another model.

    `classes`: names in the order of the outputs, or {output: names}; `none`: it is kept as a trunk without heads. `scale`: of pictures,
    as the network sees them. `size`: of pictures, (height, width), where the file leaves it open; `length`: of other rows with one open
    side; `fit`: how a file of a picture comes to its size. `rate`: of sounds, samples a second. `columns`: of a table, in order.
    `dataset`: one whose rows it takes; where it is labelled, what else is not said is tried on it. `target`: the task's name; `output`:
    the one of several outputs that is kept.
    """

    classes: Classes | dict[str, Classes] | Literal["none"] | None = None
    scale: Scale | None = None
    size: tuple[Side, Side] | None = None
    length: Annotated[int, Field(ge=1, le=65_536)] | None = None
    fit: Fit | None = None
    rate: Rate | None = None
    columns: list[Label] = []
    dataset: str | None = None
    target: TaskName | None = None
    output: str | None = None


class Probe(SpecModel):
    """Labelled rows that the network answered under one reading of its inputs and outputs; `accuracy`: the share that it named right."""

    scale: Scale | None
    classes: Literal["as given", "in alphabetical order"] = "as given"
    accuracy: float
    rows: int


Sides = list[Annotated[int, Field(ge=0)]]


class StoredArray(SpecModel):
    """An array of a file of weights. `place`: in a `.weights.h5` where it lies, as in layers/bidirectional_1/forward_layer/cell/0, and then
    `layer`: the names of the layer and of those around it, as in OUTER/INNER; None where the file has no names."""

    name: str
    shape: Sides
    place: str | None = None
    layer: str | None = None


class NamedArray(SpecModel):
    name: str
    shape: Sides


class MatchedArray(SpecModel):
    """`by`: the layer's name, or its place among the layers of its class."""

    array: str
    variable: str
    shape: Sides
    by: Literal["name", "order"]


class MisshapenArray(SpecModel):
    array: str
    shape: Sides
    variable: str
    expected: Sides
    hint: str


class WeightsReport(SpecModel):
    """What became of each array of a file of weights, and where each number of the network comes from."""

    matched: list[MatchedArray] = []
    unmatched_in_file: list[NamedArray] = Field([], description="arrays that were left out")
    unmatched_in_network: list[NamedArray] = Field([], description="variables that stay as `seed` drew them")
    of_another_shape: list[MisshapenArray] = Field(
        [], description="arrays that belong to a variable and do not fit it, which stays as `seed` drew it"
    )


class Origin(SpecModel):
    """Where a model that no job of this service trained comes from.

    `sha256`, `bytes`: of the file that was sent. `notes`: what was decided, or left behind, without being asked for.
    """

    file: str
    sha256: str
    bytes: int
    options: dict[str, Any] = {}
    notes: list[str] = []
    probes: list[Probe] = Field([], description="readings that were tried on labelled rows")
    licence: str | None = None
    source: str | None = Field(None, description="who made it, and where it is found")
    weights: WeightsReport | None = Field(
        None,
        description="of weights alone for a named architecture: which array became what",
    )
