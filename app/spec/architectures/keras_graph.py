"""A network given layer by layer: stock layers of Keras, and how they are called.

What a user's own model becomes. No name in it leads to code: a layer's `kind` is one of a list, its `config` holds known keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from app.spec import stock_layers
from app.spec.architectures._base import Architecture, Shape
from app.spec.base import SpecModel
from app.spec.data import InputSchema, WordPiece
from app.spec.faults import MOST, UNFIT, Fault, nearest, pointer
from app.spec.registry import modules

MOST_LAYERS, MOST_INPUTS = 2000, 8

MOST_NODES = 200_000
"""Values in the arguments of all layers and calls."""

Label = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Of a layer, a call or an input."""


Plain = Annotated[
    Any, WithJsonSchema({"description": "a number, a text, or a list or an object of such, as the layer takes it"})
]


RESERVED = re.compile(
    r"input(_(shrunk|flattened|averaged|restored|repeated))?|resize(_\d+)?|preprocessing.*|head_flatten", re.ASCII
)
"""Names of layers that stand around the network in a kept model."""


class Given(SpecModel):
    """A tensor that the network is given. `integers`: as whole numbers such as ids, from 0 to `largest`; others become the nearest."""

    model_config = ConfigDict(frozen=True)

    name: Label
    shape: Annotated[list[Annotated[int, Field(ge=1, le=stock_layers.LARGEST)]], Field(max_length=4)]
    integers: bool = False
    largest: int | None = Field(None, ge=0, lt=2**24)


class StockLayer(SpecModel):
    """`kind`: the class in keras.layers, or "ops.CLASS" of an operation. `config`: arguments that differ from the defaults; where one is
    itself a layer, it has this form too."""

    kind: str = Field(max_length=64)
    config: dict[str, Plain] = {}


class Call(SpecModel):
    """One use of a layer. A tensor among the arguments is {"tensor": NAME}, an input's or an earlier call's; of a call that gives several,
    {"tensor": NAME, "output": NUMBER}. A layer that is called again has the same numbers in each call."""

    name: Label
    layer: Label
    args: list[Plain] = []
    kwargs: dict[str, Plain] = {}


class Spec(Architecture):
    """`given`: what the network is given; of several the rows are one after another, by name. `tokens`: what the ids are that it is given
    of a text, where it was trained on such. `features`: the call whose output the heads stand on."""

    inputs: ClassVar[str] = "image"
    arch: Literal["keras-graph"] = "keras-graph"
    kind: Literal["image", "table", "text", "audio", "multimodal"] = "image"
    given: Annotated[list[Given], Field(min_length=1, max_length=MOST_INPUTS)]
    layers: Annotated[dict[Label, StockLayer], Field(max_length=MOST_LAYERS)]
    calls: Annotated[list[Call], Field(max_length=MOST_LAYERS)]
    features: Label
    tokens: WordPiece | None = Field(
        None,
        exclude_if=lambda tokens: tokens is None,
        description="texts are seen in tokens of the vocabulary of a kept model, which the job starts or learns from; null: as they are",
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Spec:
        """Of stock layers alone, each called with tensors that are there. All faults at once."""
        if faults := list(islice(_faults(self), MOST)):
            raise PydanticCustomError(UNFIT, "not a graph of stock layers", {"faults": faults})
        return self

    @property
    def input_kind(self) -> str:
        return self.kind

    def free_name(self, wanted: str) -> str:
        """A name that no layer and no call has, near `wanted`."""
        taken = {*self.layers, *(call.name for call in self.calls), *(given.name for given in self.given)}
        while wanted in taken:
            wanted += "_"
        return wanted

    @property
    def layer_names(self) -> frozenset[str]:
        return frozenset(self.layers)

    @property
    def tokens_seen(self) -> WordPiece | None:
        return self.tokens

    def seen(self, input: InputSchema) -> InputSchema:
        return input if input.tokens == self.tokens else input.model_copy(update={"tokens": self.tokens})

    def trunk_shape(self, shape: Shape) -> Shape:
        """A picture of any size is resized to the one that the network is given."""
        (sides,) = [tuple(given.shape) for given in self.given[:1]]
        if modules("inputs")[self.kind].RESIZED and len(shape) == len(sides) == 3:
            if shape[-1] != sides[-1] and (shape[-1], sides[-1]) != (1, 3):
                raise ValueError(f"the network sees {sides[-1]} channels, the data has {shape[-1]}")
            return sides
        return shape

    def check(self, shape: Shape) -> None:
        wanted = sum(prod(given.shape) for given in self.given)
        if prod(shape) != wanted:
            raise ValueError(f"the network is given {wanted} numbers a row, the data has {prod(shape)}")


def _faults(spec: Spec) -> Iterator[Fault]:
    if _nodes(spec) > MOST_NODES:
        yield Fault(
            "/layers",
            f"arguments of more than {MOST_NODES} values",
            "leave out what is as Keras would have it",
            "too_large",
        )
        return
    for name, layer in spec.layers.items():
        at = "/layers" + pointer(name)
        if RESERVED.fullmatch(name):
            yield Fault(at, "a layer around the network has this name", f"call it own-{name}", "name_taken")
        for where, message, hint in stock_layers.faults(layer.kind, layer.config):
            yield Fault(at + where, message, hint)
    known, several = set[str](), set[str]()
    for place, given in enumerate(spec.given):
        yield from _twice(given.name, known, f"/given/{place}/name")
    for place, call in enumerate(spec.calls):
        at = f"/calls/{place}"
        for where, message, hint in stock_layers.call_faults(call.args, call.kwargs, known, several):
            yield Fault(at + where, message, hint)
        yield from _twice(call.name, known, at + "/name")
        called = spec.layers.get(call.layer)
        if called is None:
            yield Fault(
                at + "/layer", "there is no such layer", nearest(call.layer, spec.layers, "layers"), "unknown_name"
            )
        elif stock_layers.gives_several(called.kind, called.config, call.kwargs):
            several.add(call.name)
    if spec.tokens is not None and not _takes_ids(spec):
        wanted = f"kind text, and one input of shape [{spec.tokens.length}] with integers: true"
        yield Fault("/tokens", f"tokens go with {wanted}", "leave `tokens` out, or give the network ids")
    used = {call.layer for call in spec.calls}
    for name in spec.layers:
        if name not in used:
            yield Fault("/layers" + pointer(name), "no call is one of this layer", "call it, or leave it out")
    if spec.features not in known - {given.name for given in spec.given}:
        calls = nearest(spec.features, [call.name for call in spec.calls], "calls")
        yield Fault("/features", "expected the name of a call", calls, "unknown_name")
    elif spec.features in several:
        yield Fault("/features", "this call gives several tensors", "name a call that gives one")


def _takes_ids(spec: Spec) -> bool:
    """Whether what the graph is given can be the ids of its tokens."""
    sides = [[spec.tokens.length]] if spec.tokens is not None else []
    of_texts = hasattr(modules("inputs")[spec.kind], "in_tokens")
    return of_texts and [given.shape for given in spec.given] == sides and spec.given[0].integers


def _twice(name: str, known: set[str], at: str) -> Iterator[Fault]:
    if name in known:
        yield Fault(at, "an input or another call has this name", "give each a name of its own")
    known.add(name)


def _nodes(spec: Spec) -> int:
    """How many values the arguments hold. It stops counting beyond the most."""
    ahead: list[Any] = [layer.config for layer in spec.layers.values()]
    ahead += [part for call in spec.calls for part in (call.args, call.kwargs)]
    count = len(ahead)
    while ahead and count <= MOST_NODES:
        value = ahead.pop()
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(items)
        ahead.extend(items)
    return count


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
