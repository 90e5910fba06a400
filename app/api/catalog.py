"""/v1/catalog: all that works here, as the programs themselves describe it. Nothing is listed by hand."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app import applications, methods
from app.api import deps, schemas
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


class ApplicationEntry(BaseModel):
    description: str
    body: dict[str, Any] = Field(description="a body that can be submitted as it is")


class Catalog(BaseModel):
    kinds: dict[str, KindEntry]
    architectures: dict[str, VariantEntry]
    objectives: dict[str, VariantEntry]
    weightings: dict[str, VariantEntry]
    regularizers: dict[str, VariantEntry] = Field(description="of transfer")
    strategies: list[str] = Field(description="of transfer")
    sharings: dict[str, VariantEntry] = Field(description="of multitask")
    datasets: dict[str, DatasetEntry]
    applications: dict[str, ApplicationEntry] = Field(description="what the service is for, as jobs")


@router.get("", response_model=Catalog, responses=deps.problem_responses(), summary="Everything that works here")
def get_catalog() -> Catalog:
    """Kinds of job with schema and example, architectures, objectives, weightings, sharings, regularizers, data sets."""
    return _catalog()


@cache
def _catalog() -> Catalog:
    kinds = {name: _kind(module) for name, module in methods.kinds().items()}
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
        applications={
            name: ApplicationEntry(description=body["name"], body=body) for name, body in applications.bodies().items()
        },
    )


def _kind(module: ModuleType) -> KindEntry:
    return KindEntry(
        description=_first_line(module), schema_=schemas.of_spec("methods", module.Spec), example=module.EXAMPLE
    )


def _variants(kind: Kind) -> dict[str, VariantEntry]:
    return {
        name: VariantEntry(
            description=_first_line(module),
            schema_=schemas.of_spec(kind, module.Spec) if hasattr(module, "Spec") else None,
        )
        for name, module in modules(kind).items()
    }


def _choices(kinds: dict[str, KindEntry], kind: str, field: str) -> list[str]:
    """The values that a kind's schema allows for a field, so that only what works is offered."""
    schema = kinds[kind].schema_.get("properties", {}).get(field, {}) if kind in kinds else {}
    return schema.get("enum") or ([schema["const"]] if "const" in schema else [])


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]
