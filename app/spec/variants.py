"""The parts of a spec that are one module out of several: a weighting, a sharing, an objective, a regularizer, an architecture.

`Weighting` and its like annotate a field. A name, or an object that has the name and that module's own fields, becomes an instance of
the module's `Spec`; the JSON Schema lists every name with its fields. Modules are looked up when a spec is read and when a schema is
made, so those of plugins are among them, and none is imported with this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.spec import architectures
from app.spec.architectures import Architecture, applications
from app.spec.base import SpecModel
from app.spec.faults import LATER, UNFIT, Fault, Invalid, nearest, pointer, validate
from app.spec.registry import TAGS, Kind, modules


@dataclass(frozen=True)
class Unfit:
    """Stands in a spec for a variant that fits no module (`faults.LATER`). `faults`: why, pointers from its place on."""

    faults: tuple[Fault, ...]


def left_over(node: Any, at: str = "") -> Iterator[Fault]:
    """The faults of every variant in a spec that is still an `Unfit`."""
    if isinstance(node, Unfit):
        yield from (fault.under(at) for fault in node.faults)
    parts = node if isinstance(node, BaseModel) else node.items() if isinstance(node, dict) else ()
    for key, inner in enumerate(node) if isinstance(node, list) else parts:
        yield from left_over(inner, at + pointer(key))


@dataclass(frozen=True)
class Named:
    """Annotates a field that holds a `Spec` of one of the modules of `kind`.

    `expected`, `plural`: how an error names one of them, and all. `brief`: the name alone is taken too, for an object with nothing else.
    `besides`, `pattern`: strings that name no module and stay as they are, in a list, or by a regular expression.
    """

    kind: Kind
    expected: str
    plural: str
    brief: bool = True
    besides: tuple[str, ...] = ()
    pattern: str | None = None

    def read(self, value: str | dict[str, Any]) -> BaseModel:
        """The variant that a name or an object stands for.

        Raises:
            Invalid: there is no such name, or the fields beside it do not fit its module.
        """
        available, tag = self.modules(), TAGS[self.kind]
        given = {tag: value} if isinstance(value, str) else value
        name = given.get(tag)
        if not isinstance(name, str) or name not in available:
            place = "" if isinstance(value, str) else f"/{tag}"
            hint = nearest(str(name), available, self.plural)
            raise Invalid([Fault(place, f"expected {self.expected}", hint, "unknown_name")])
        variant: BaseModel = validate(available[name].Spec, given)
        if isinstance(value, str):
            variant.model_fields_set.discard(tag)  # a pointer to it would lead nowhere
        return variant

    def names(self) -> Iterable[str]:
        """The strings that stand for a variant."""
        return self.modules()

    def modules(self) -> Mapping[str, Any]:
        """Those that may be named."""
        return modules(self.kind)

    def patterns(self) -> list[str]:
        """The patterns of further strings that are taken."""
        return [] if self.pattern is None else [self.pattern]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        choices = {name: module.Spec.__pydantic_core_schema__ for name, module in self.modules().items()}
        objects = handler(core_schema.tagged_union_schema(choices, TAGS[self.kind]))
        if not self.brief:
            return objects
        strings: list[JsonSchemaValue] = [{"type": "string", "enum": [*self.besides, *self.names()]}]
        strings += [{"type": "string", "pattern": pattern} for pattern in self.patterns()]
        return {"anyOf": [*strings, objects]}

    def _validated(self, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, (BaseModel, Unfit)):
            return value
        if isinstance(value, str) and (value in self.besides or (self.pattern and re.search(self.pattern, value))):
            return value
        if not isinstance(value, (str, dict) if self.brief else dict):
            if self.brief:
                either = "Input should be a valid string, or input should be a valid dictionary"
                raise PydanticCustomError("string_type", either)
            raise PydanticCustomError("dict_type", "Input should be a valid dictionary")
        try:
            return self.read(value)
        except Invalid as invalid:
            if info.context and info.context.get(LATER):
                return Unfit(tuple(invalid.faults))
            raise PydanticCustomError(UNFIT, "it fits no module", {"faults": invalid.faults}) from None


@dataclass(frozen=True)
class _NamedArchitecture(Named):
    def read(self, value: str | dict[str, Any]) -> Architecture:
        return architectures.resolve(value)

    def names(self) -> Iterable[str]:
        names = architectures.names()
        backbones = [f"{applications.PREFIX}{name}" for name in applications.NAMES]
        return [*names, *(f"arch:{name}" for name in names), *backbones]

    def patterns(self) -> list[str]:
        return [*super().patterns(), *architectures.short_patterns()]


@dataclass(frozen=True)
class _NamedPart(_NamedArchitecture):
    """Of one part of a network that has several: none that has parts itself."""

    def read(self, value: str | dict[str, Any]) -> Architecture:
        own = super().read(value)
        if own.of_parts:
            message = "a part of a network has no parts itself"
            raise Invalid([Fault("", message, nearest("", self.modules(), self.plural), "not_available")])
        return own

    def names(self) -> Iterable[str]:
        return self.modules()

    def modules(self) -> Mapping[str, Any]:
        return {name: module for name, module in modules(self.kind).items() if not module.Spec.of_parts}


def settled(architecture: Architecture | str | None) -> Architecture:
    """The architecture that a resolved spec has, though its field may be left out of a body."""
    assert isinstance(architecture, Architecture)
    return architecture


IS_MODEL = r"^(job:|model:|mdl_|pretrained:)"
"""The beginning of a reference to a kept model, where an architecture may be named as well."""

Weighting = Annotated[SpecModel, Named("weighting", "the name of a weighting", "weightings")]
Sharing = Annotated[SpecModel, Named("sharing", "the name of a sharing", "sharings")]
Objective = Annotated[SpecModel, Named("objectives", "the name of an objective", "objectives", brief=False)]
Objectives = Annotated[list[Objective], Field(min_length=1, max_length=8)]
Regularizer = Annotated[
    SpecModel | Literal["none"],
    Named("regularizers", "the name of a regularizer, or none", "regularizers", besides=("none",)),
]
AnyArchitecture = Annotated[Architecture, _NamedArchitecture("architectures", "an architecture", "architectures")]
"""A name from the catalog (`cnn`, `arch:cnn`, `applications:MobileNetV2`), or an object {"arch": NAME, …bounded numbers}."""

PartArchitecture = Annotated[Architecture, _NamedPart("architectures", "an architecture", "architectures")]
"""As `AnyArchitecture`, for one part of a network."""

ArchitectureOrModel = Annotated[
    Architecture | str, _NamedArchitecture("architectures", "an architecture", "architectures", pattern=IS_MODEL)
]
"""As `AnyArchitecture`, or a reference to a kept model, which the lookup knows or not."""
