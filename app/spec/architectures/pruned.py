"""Another network with fewer channels: what a student is made of whose teacher it is to resemble (Li et al. 2017, arXiv:1608.08710).

Which layers can be narrower follows from the graph: `worker/training/networks/channels.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from app.spec.architectures._base import Architecture, Shape
from app.spec.data import InputSchema, Tokens, WordPiece
from app.spec.variants import PartArchitecture


class Spec(Architecture):
    inputs: ClassVar[str] = "image"
    of_parts: ClassVar[bool] = True
    arch: Literal["pruned"] = "pruned"
    of: PartArchitecture | None = Field(
        None, description="the network that is made narrower; null: the first teacher's"
    )
    width: float = Field(0.5, gt=0, lt=1, description="the share of its channels that each layer keeps, at least one")

    @property
    def whole(self) -> Architecture:
        """Raises ValueError: it is not said."""
        if self.of is None:
            raise ValueError(
                "`of` names the network that is made narrower, and there is no teacher whose network it could be"
            )
        return self.of

    @property
    def input_kind(self) -> str:
        return self.inputs if self.of is None else self.of.input_kind

    @property
    def label(self) -> str:
        return f"{'a network' if self.of is None else self.of.label} at {self.width:g} of its width"

    @property
    def known_shape(self) -> Shape | None:
        return None if self.of is None else self.of.known_shape

    @property
    def pixels(self) -> str | None:
        return None if self.of is None else self.of.pixels

    @property
    def layer_names(self) -> frozenset[str]:
        return frozenset() if self.of is None else self.of.layer_names

    @property
    def tokens_seen(self) -> Tokens | WordPiece | None:
        return None if self.of is None else self.of.tokens_seen

    def seen(self, input: InputSchema) -> InputSchema:
        return input if self.of is None else self.of.seen(input)

    def trunk_shape(self, shape: Shape) -> Shape:
        return self.whole.trunk_shape(shape)

    def fitted(self, shape: Shape, input: InputSchema | None = None) -> Architecture:
        return self.model_copy(update={"of": self.whole.fitted(shape, input)})

    def check(self, shape: Shape) -> None:
        self.whole.check(shape)


EXAMPLE: dict[str, Any] = {"arch": "pruned", "of": "cnn-small", "width": 0.5}
