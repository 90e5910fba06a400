"""A network given layer by layer: stock layers of Keras, and how they are called.

What a user's own model becomes. No name in it leads to code: a layer's `kind` is one of a list, its `config` holds known keys.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from app.spec.architectures._base import Architecture, Shape
from app.spec.base import SpecModel

MOST_LAYERS, MOST_INPUTS = 2000, 8

Label = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Of a layer, a call or an input."""


class Given(SpecModel):
    """A tensor that the network is given. `integers`: as whole numbers, ids for instance, from 0 to `largest`: others are taken for these."""

    model_config = ConfigDict(frozen=True)

    name: Label
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=4)]
    integers: bool = False
    largest: int | None = Field(None, ge=0, lt=2**24)


class StockLayer(SpecModel):
    """`kind`: the class in keras.layers, or "ops.CLASS" of an operation. `config`: arguments that differ from the defaults; where one is
    itself a layer, it has this form too."""

    kind: str = Field(max_length=64)
    config: dict[str, Any] = {}


class Call(SpecModel):
    """One use of a layer. A tensor among the arguments is {"tensor": NAME}, an input's or an earlier call's; of a call that gives several,
    {"tensor": NAME, "output": NUMBER}. A layer that is called again has the same numbers in each call."""

    name: Label
    layer: Label
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class Spec(Architecture):
    """`given`: what the network is given; of several the rows are one after another, by name. `features`: the call whose output the heads
    stand on."""

    inputs: ClassVar[str] = "image"
    arch: Literal["keras-graph"] = "keras-graph"
    kind: Literal["image", "table", "text", "audio", "multimodal"] = "image"
    given: Annotated[list[Given], Field(min_length=1, max_length=MOST_INPUTS)]
    layers: Annotated[dict[Label, StockLayer], Field(max_length=MOST_LAYERS)]
    calls: Annotated[list[Call], Field(max_length=MOST_LAYERS)]
    features: Label

    @property
    def input_kind(self) -> str:
        return self.kind

    @property
    def layer_names(self) -> frozenset[str]:
        return frozenset(self.layers)

    def trunk_shape(self, shape: Shape) -> Shape:
        """A picture of any size is resized to the one that the network is given."""
        (sides,) = [tuple(given.shape) for given in self.given[:1]]
        if self.kind == "image" and len(shape) == len(sides) == 3:
            if shape[-1] != sides[-1] and (shape[-1], sides[-1]) != (1, 3):
                raise ValueError(f"the network sees {sides[-1]} channels, the data has {shape[-1]}")
            return sides
        return shape

    def check(self, shape: Shape) -> None:
        wanted = sum(prod(given.shape) for given in self.given)
        if prod(shape) != wanted:
            raise ValueError(f"the network is given {wanted} numbers a row, the data has {prod(shape)}")


EXAMPLE: dict[str, Any] = {
    "arch": "keras-graph",
    "given": [{"name": "image", "shape": [12, 12, 1]}],
    "layers": {
        "conv": {"kind": "Conv2D", "config": {"filters": 8, "kernel_size": [3, 3], "activation": "relu"}},
        "pool": {"kind": "GlobalAveragePooling2D"},
    },
    "calls": [
        {"name": "conv", "layer": "conv", "args": [{"tensor": "image"}]},
        {"name": "pool", "layer": "pool", "args": [{"tensor": "conv"}]},
    ],
    "features": "pool",
}
