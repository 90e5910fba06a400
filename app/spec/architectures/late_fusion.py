"""A network for each part of a row, their features side by side, and dense layers on these: the parts meet late (Snoek et al. 2005)."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from app.spec import architectures
from app.spec.architectures._base import Architecture, Shape, trunk_shape
from app.spec.data import InputSchema, Name
from app.spec.registry import modules
from app.spec.variants import PartArchitecture

Sides = Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=4)]


class Spec(Architecture):
    inputs: ClassVar[str] = "multimodal"
    of_parts: ClassVar[bool] = True
    default: ClassVar[Literal["ARCHITECTURE", "STUDENT"]] = "ARCHITECTURE"
    arch: Literal["late-fusion"] = "late-fusion"
    parts: dict[Name, PartArchitecture] = Field(
        {},
        description="the architecture of each part: `file`, `table`, a text's column; of others the usual one of their kind",
    )
    shapes: dict[Name, Sides] = Field(
        {}, description="of each part, as its network sees it; filled in from the data set"
    )
    units: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(max_length=8)] = Field(
        [64], description="dense layers on the features of all parts"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="before each of these layers")

    @field_validator("parts", "shapes")
    @classmethod
    def _in_one_order(cls, parts: dict[str, Any]) -> dict[str, Any]:
        """By name, as the parts of a row are."""
        return dict(sorted(parts.items()))

    def fitted(self, shape: Shape, input: InputSchema | None = None) -> Architecture:  # noqa: ARG002
        """With the architecture and the shape of each part, in the order of the data set's."""
        if input is None:
            return self
        unknown = [name for name in self.parts if name not in input.parts]
        if unknown:
            there = ", ".join(input.parts)
            raise ValueError(f"{self.arch} names the part {unknown[0]!r}, the data has the parts {there}")
        parts, shapes = dict[str, Architecture](), dict[str, list[int]]()
        for name, part in input.parts.items():
            prepared = getattr(modules("inputs")[part.kind], "prepared_shape", None)
            seen = tuple(part.shape if prepared is None else prepared(part))
            parts[name], shapes[name] = self._of_part(name, part, seen), list(seen)
        return self.model_copy(update={"parts": parts, "shapes": shapes})

    def _of_part(self, name: str, part: InputSchema, seen: Shape) -> Architecture:
        """The architecture of a part whose network sees `seen`. Raises ValueError."""
        usual = getattr(modules("inputs")[part.kind], self.default)
        own = self.parts[name] if name in self.parts else architectures.resolve(usual)
        if own.input_kind != part.kind:
            raise ValueError(f"the part {name!r} is of kind {part.kind}, {own.label} takes {own.input_kind} inputs")
        if own.tokens_seen is not None:
            raise ValueError(f"the part {name!r} is one of several, and only a text alone can be seen in tokens")
        try:
            own = own.fitted(seen, part)
            resized = trunk_shape(own, seen) != seen
        except ValueError as error:
            raise ValueError(f"the part {name!r}: {error}") from None
        if resized:
            raise ValueError(f"the part {name!r} has shape {list(seen)}, which {own.label} would see resized")
        return own

    def check(self, shape: Shape) -> None:
        """Refuses numbers that are not the parts', and what a part's own network refuses."""
        if set(self.shapes) != set(self.parts) or sum(prod(sides) for sides in self.shapes.values()) != prod(shape):
            raise ValueError(
                f"{self.arch} is made for parts of the shapes {self.shapes}, the data has {prod(shape)} numbers a row"
            )
        for name, own in self.parts.items():
            own.check(tuple(self.shapes[name]))


EXAMPLE: dict[str, Any] = {
    "arch": "late-fusion",
    "parts": {"file": "resnet-8", "note": "text-cnn-small"},
    "units": [32],
}
"""Of a data set whose rows have a picture and a column of notes."""
