"""The published JSON Schemas of jobs, their variants and their reports: a form or a generator of clients needs nothing else.

Every definition has a name of its own, which is its title as well: generators name classes by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app import methods
from app.api.bodies import INTEGERS
from app.spec.registry import TAGS, Kind

WITHIN, COMPONENTS = "#/$defs/", "#/components/schemas/"


def of_spec(kind: Kind, spec: type[BaseModel]) -> dict[str, Any]:
    """The schema of a module's `Spec`, with all that it refers to within."""
    (name,), made = _named([spec], "validation", WITHIN)
    _strict(made, {name: TAGS[kind]})
    schema: dict[str, Any] = made.pop(name)
    return {**schema, "$defs": made} if made else schema


def of_jobs() -> dict[str, Any]:
    """Schemas by name for the OpenAPI document: `JobSpec`, the body of POST /v1/jobs, and its parts."""
    kinds = methods.kinds()
    names, made = _named([module.Spec for module in kinds.values()], "validation", COMPONENTS)
    _strict(made, dict.fromkeys(names, TAGS["methods"]))
    return {**made, "JobSpec": _either(dict(zip(kinds, names, strict=True)))}


def of_reports() -> dict[str, Any]:
    """Schemas by name for the OpenAPI document: `Report`, the answer of GET /v1/jobs/{id}/report, and its parts.

    A kind whose module has no `REPORT` answers with whatever object its method writes.
    """
    kinds = methods.kinds()
    reports = {name: module.REPORT for name, module in kinds.items() if hasattr(module, "REPORT")}
    names, made = _named(list(reports.values()), "serialization", COMPONENTS)
    either = _either(dict(zip(reports, names, strict=True)))
    if len(reports) < len(kinds):
        del either["discriminator"]
        either["oneOf"].append({"type": "object", "properties": {"kind": {"not": {"enum": list(reports)}}}})
    return {**made, "Report": either}


def of_model(model: type[BaseModel]) -> dict[str, Any]:
    """Schemas by name for the OpenAPI document: a model, as it is read, and its parts."""
    return _named([model], "validation", COMPONENTS)[1]


def _named(
    models: Sequence[type[BaseModel]], mode: JsonSchemaMode, home: str
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The name of each model; and by name the schemas of the models and their parts, which refer to each other under `home`."""
    places, made = models_json_schema([(model, mode) for model in models], ref_template=home + "{model}")
    titles = Counter(schema.get("title") for schema in made["$defs"].values())
    names = {key: schema["title"] if titles[schema.get("title")] == 1 else key for key, schema in made["$defs"].items()}
    moved = {home + key: home + name for key, name in names.items()}
    definitions = {names[key]: {**renamed(schema, moved), "title": names[key]} for key, schema in made["$defs"].items()}
    with_open_keys(definitions)
    return [moved[places[model, mode]["$ref"]].removeprefix(home) for model in models], definitions


def renamed(node: Any, moved: Mapping[str, str]) -> Any:
    """A document with every text that is a key of `moved` replaced by its value."""
    if isinstance(node, dict):
        return {key: renamed(inner, moved) for key, inner in node.items()}
    if isinstance(node, list):
        return [renamed(inner, moved) for inner in node]
    return moved.get(node, node) if isinstance(node, str) else node


def with_open_keys(schemas: Any) -> None:
    """Rewrites `patternProperties` of one pattern as `additionalProperties`, since generators of clients do not know the former."""
    for node in _nodes(schemas):
        if "patternProperties" in node:
            ((pattern, inner),) = node.pop("patternProperties").items()
            node["additionalProperties"] = inner
            node["propertyNames"] = {**node.get("propertyNames", {}), "pattern": pattern}


def _either(names: Mapping[str, str]) -> dict[str, Any]:
    """One of several, told apart by `kind`."""
    mapping = {kind: COMPONENTS + name for kind, name in names.items()}
    return {
        "oneOf": [{"$ref": place} for place in mapping.values()],
        "discriminator": {"propertyName": "kind", "mapping": mapping},
    }


def _strict(definitions: dict[str, dict[str, Any]], tags: Mapping[str, str]) -> None:
    """Makes schemas as strict as the service where pydantic's are not: a field that tells variants apart must be given although it has
    a default, and a body's integers have 64 bits. `tags`: by definition, the field that must be given besides.
    """
    for name, tag in tags.items():
        _require(definitions[name], tag)
    for node in _nodes(definitions):
        if "discriminator" in node:
            for place in node["discriminator"]["mapping"].values():
                _require(definitions[place.rpartition("/")[2]], node["discriminator"]["propertyName"])
        if node.get("type") == "integer":
            if "exclusiveMinimum" not in node:
                node.setdefault("minimum", INTEGERS[0])
            if "exclusiveMaximum" not in node:
                node.setdefault("maximum", INTEGERS[-1])


def _require(schema: dict[str, Any], field: str) -> None:
    schema["required"] = list(dict.fromkeys([field, *schema.get("required", [])]))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(inner)
