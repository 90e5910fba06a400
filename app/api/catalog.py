"""/v1/catalog: all that works here, as the programs themselves describe it. Nothing is listed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import models_json_schema

from app import methods
from app.api import deps
from app.api.bodies import INTEGERS
from app.data.builtins import BUILTINS
from app.spec.registry import Kind, modules

router = APIRouter(prefix="/v1/catalog", tags=["service"])


class KindEntry(BaseModel):
    description: str
    schema_: dict[str, Any] = Field(
        serialization_alias="schema", description="JSON Schema of the body of POST /v1/jobs"
    )
    example: dict[str, Any] = Field(description="a body that can be submitted as it is")


class VariantEntry(BaseModel):
    description: str
    schema_: dict[str, Any] | None = Field(serialization_alias="schema", description="its numbers with their bounds")


class DatasetEntry(BaseModel):
    description: str
    origin: str


class Catalog(BaseModel):
    kinds: dict[str, KindEntry]
    architectures: dict[str, VariantEntry]
    objectives: dict[str, VariantEntry]
    weightings: dict[str, VariantEntry]
    regularizers: dict[str, VariantEntry] = Field(description="of transfer")
    strategies: list[str] = Field(description="of transfer")
    sharings: dict[str, VariantEntry] = Field(description="of multitask")
    datasets: dict[str, DatasetEntry]


@router.get("", response_model=Catalog, responses=deps.problem_responses(), summary="Everything that works here")
def get_catalog() -> Catalog:
    """Kinds of job with schema and example, architectures, objectives, weightings, sharings, regularizers, data sets."""
    return _catalog()


def spec_schema() -> dict[str, Any]:
    """What POST /v1/jobs takes, of whatever kind: for the OpenAPI document."""
    return {"oneOf": [entry.schema_ for entry in _catalog().kinds.values()], "discriminator": {"propertyName": "kind"}}


def report_schemas() -> dict[str, Any]:
    """By name: `Report`, what GET /v1/jobs/{id}/report answers, and all that it is made of: for the OpenAPI document.

    A kind whose module has no `REPORT` answers with whatever object its method writes.
    """
    kinds = methods.kinds()
    reports = {name: module.REPORT for name, module in kinds.items() if hasattr(module, "REPORT")}
    places, made = models_json_schema(
        [(report, "serialization") for report in reports.values()], ref_template="#/components/schemas/{model}"
    )
    of_kind = {name: places[report, "serialization"] for name, report in reports.items()}
    either: dict[str, Any] = {"oneOf": list(of_kind.values())}
    if len(reports) == len(kinds):
        mapping = {name: place["$ref"] for name, place in of_kind.items()}
        either["discriminator"] = {"propertyName": "kind", "mapping": mapping}
    else:
        either["oneOf"].append({"type": "object", "properties": {"kind": {"not": {"enum": list(reports)}}}})
    return {**made["$defs"], "Report": either}


@cache
def _catalog() -> Catalog:
    kinds = {name: _kind(name, module) for name, module in methods.kinds().items()}
    return Catalog(
        kinds=kinds,
        architectures=_variants("architectures"),
        objectives=_variants("objectives"),
        weightings=_variants("weighting"),
        regularizers=_variants("regularizers"),
        strategies=_choices(kinds, "transfer", "strategy"),
        sharings=_variants("sharing"),
        datasets={
            name: DatasetEntry(description=builtin.description, origin=builtin.origin)
            for name, builtin in BUILTINS.items()
        },
    )


def _kind(name: str, module: ModuleType) -> KindEntry:
    return KindEntry(description=_first_line(module), schema_=_schema(module.Spec, name), example=module.EXAMPLE)


def _variants(kind: Kind) -> dict[str, VariantEntry]:
    return {
        name: VariantEntry(
            description=_first_line(module), schema_=_schema(module.Spec, name) if hasattr(module, "Spec") else None
        )
        for name, module in modules(kind).items()
    }


def _schema(spec: Any, name: str) -> dict[str, Any]:
    """The JSON Schema of the variant `name`, as strict as the service where pydantic's own is not.

    A field that tells variants apart must be given although it has a default, and a body's integers have 64 bits.
    """
    schema = TypeAdapter(spec).json_schema()
    _require(schema, *(field for field, about in schema.get("properties", {}).items() if about.get("const") == name))
    definitions = schema.get("$defs", {})
    for node in _nodes(schema):
        if "discriminator" in node:
            for place in node["discriminator"].get("mapping", {}).values():
                _require(definitions[place.removeprefix("#/$defs/")], node["discriminator"]["propertyName"])
        if node.get("type") == "integer":
            if "exclusiveMinimum" not in node:
                node.setdefault("minimum", INTEGERS[0])
            if "exclusiveMaximum" not in node:
                node.setdefault("maximum", INTEGERS[-1])
    return schema


def _require(schema: dict[str, Any], *fields: str) -> None:
    schema["required"] = list(dict.fromkeys([*fields, *schema.get("required", [])]))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(inner)


def _choices(kinds: dict[str, KindEntry], kind: str, field: str) -> list[str]:
    """The values that a kind's schema allows for a field, so that only what works is offered."""
    schema = kinds[kind].schema_.get("properties", {}).get(field, {}) if kind in kinds else {}
    return schema.get("enum") or ([schema["const"]] if "const" in schema else [])


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]
