"""A user's network as this service keeps it: a trunk, heads, and what it is fed; its numbers lie beside it in a file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.spec.base import SpecModel
from app.spec.data import InputSchema
from app.spec.imports import Origin, Scale
from app.spec.models import HeadSpec, TaskManifest
from app.spec.named_weights import WeightsOrder
from app.spec.variants import AnyArchitecture

Part = Literal["hidden", "logits"]


class Head(SpecModel):
    """`layers`: the layer of the file that each part of a head comes from. `spatial`: the last one is a convolution of one place.
    `of_two`: its two outputs become one, their difference."""

    task: str
    manifest: TaskManifest
    spec: HeadSpec
    layers: dict[Part, str]
    spatial: bool = False
    of_two: bool = False


class Adopted(SpecModel):
    """One reading of a file. `architecture`: the trunk; `canvas`: the shape that it sees, where that is not the input's; `scale`: of the
    pixels that the file's first layer is given."""

    architecture: AnyArchitecture
    input: InputSchema
    canvas: list[Annotated[int, Field(ge=1)]] | None = None
    heads: list[Head]
    scale: Scale | None = None


class Order(SpecModel):
    """What the program that has Keras is asked to write. `candidates`: readings of one file, of which it takes the best; `arrays`: the npz
    of its numbers, `LAYER/0` and on; `out`: where the model goes; `labelled`: an npz of stored rows, `rows`, whose classes are `names`;
    `weights`: of a file that has numbers alone, which ones; their layers are then looked for by name and order; `tokenizer`: a
    tokenizer.json, of a network that is given ids of texts."""

    candidates: Annotated[list[Adopted], Field(min_length=1)]
    arrays: str
    out: str
    origin: Origin
    tokenizer: str | None = None
    labelled: str | None = None
    names: list[str] = []
    weights: WeightsOrder | None = None
