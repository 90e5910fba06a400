"""The OpenAPI document says what the service does: what must be given, what is refused, what comes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from app import artifacts, ids
from app.api import schemas
from tests.app.api.artifacts import keep
from tests.app.api.conftest import add_job, end_job, problem, start_job
from tests.faults.requests_bad import REPORT

KINDS = ("transfer", "multitask", "distillation")
ANY_TEXT = {"prefer", "if-none-match", "range", "if-range"}
"""Headers of which HTTP says that whoever does not understand one leaves it aside."""


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def parameters(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                yield f"{method} {path} {parameter['name']}", parameter


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field of a spec."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        if isinstance(node, dict):
            yield (*way, key)
        yield from places(value, (*way, key))


def without(spec: dict[str, Any], way: tuple[Any, ...]) -> dict[str, Any]:
    rest = copy.deepcopy(spec)
    here: Any = rest
    for part in way[:-1]:
        here = here[part]
    del here[way[-1]]
    return rest


# --- what must be given ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_field_is_required_in_the_schema_where_the_service_misses_it(client: httpx.Client, kind: str) -> None:
    entry = client.get("/v1/catalog").json()["kinds"][kind]
    example = entry["example"] | {
        "training": {"epochs": 2, "augmentation": [{"type": "flip"}, {"type": "noise", "std": 0.1}]}
    }
    spec = client.post("/v1/jobs/validate", json=example).raise_for_status().json()["resolved_spec"]
    schema = jsonschema.Draft202012Validator(entry["schema"])
    assert schema.is_valid(spec)
    required = set()
    for way in places(spec):
        rest = without(spec, way)
        answer = client.post("/v1/jobs/validate", json=rest).json()
        missed = {"missing", "unknown_name"} & {fault["code"] for fault in answer.get("errors", ())}
        assert bool(missed) == (not schema.is_valid(rest)), (way, answer)
        required |= {way} if missed else set()
    variant = {
        "transfer": ("source", "train", "architecture", "arch"),
        "multitask": ("weighting", "name"),
        "distillation": ("objectives", 0, "type"),
    }
    assert {("kind",), ("training", "augmentation", 0, "type"), variant[kind]} <= required


@pytest.mark.parametrize(
    ("kind", "group", "part"),
    [
        ("transfer", "architectures", {"architecture": {}}),
        ("transfer", "regularizers", {"regularizer": {}}),
        ("multitask", "weightings", {"weighting": {}}),
        ("multitask", "sharings", {"sharing": {}}),
        ("distillation", "objectives", {"objectives": [{}]}),
    ],
)
def test_a_variant_without_its_name_fits_neither_the_service_nor_a_schema(
    client: httpx.Client, kind: str, group: str, part: dict[str, Any]
) -> None:
    catalog = client.get("/v1/catalog").json()
    spec = catalog["kinds"][kind]["example"] | part
    body = problem(client.post("/v1/jobs/validate", json=spec), 422, "invalid")
    assert body["errors"][0]["pointer"].startswith(f"/{next(iter(part))}")
    assert not jsonschema.Draft202012Validator(catalog["kinds"][kind]["schema"]).is_valid(spec)
    for name, entry in catalog[group].items():
        assert not jsonschema.Draft202012Validator(entry["schema"]).is_valid({}), name


def test_every_integer_of_a_spec_has_bounds(document: dict[str, Any]) -> None:
    def unbounded(node: Any) -> Iterator[Any]:
        if isinstance(node, dict) and node.get("type") == "integer":
            bounds = {word.removeprefix("exclusive").lower() for word in node}
            yield from () if {"minimum", "maximum"} <= bounds else (node,)
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from unbounded(inner)

    found = document["components"]["schemas"]
    specs = {name: found[name] for name in schemas.of_jobs()}
    assert len(specs) > 50
    assert not list(unbounded(specs))


# --- parameters ------------------------------------------------------------------------------------------------------


def test_a_text_parameter_has_a_pattern_unless_any_text_is_taken(document: dict[str, Any]) -> None:
    free = {
        parameter["name"]
        for _, parameter in parameters(document)
        if parameter["schema"].get("type") == "string" and not {"pattern", "enum"} & set(parameter["schema"])
    }
    assert free == ANY_TEXT


@pytest.mark.parametrize("name", sorted(ANY_TEXT))
def test_a_header_without_a_pattern_is_never_refused(client: httpx.Client, tmp_path: Path, name: str) -> None:
    claim = start_job(add_job())
    keep(claim, tmp_path, "model.keras", b"0123456789")
    for path in (f"/v1/jobs/{claim.job_id}", f"/v1/jobs/{claim.job_id}/artifacts/model.keras"):
        for text in ("", "null", "wait=x", "bytes=9-0", "bytes=x", '"', "W/", "~" * 2000):
            assert client.get(path, headers={name: text}).status_code == 200, (path, text)


def test_no_parameter_is_said_to_be_null(document: dict[str, Any]) -> None:
    assert len(list(parameters(document))) > 40
    assert not [where for where, parameter in parameters(document) if "null" in str(parameter["schema"])]


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("job_id", [ids.new("job")]),
        ("dataset_id", [ids.new("ds"), "digits"]),
        ("ref", [ids.new("mdl"), f"job:{ids.new('job')}", f"job:{ids.new('job')}/control/0/Digit", "model:a b/c@2"]),
        ("name", ["model.keras", "control/0.keras", "card.md"]),
    ],
)
def test_the_names_that_there_are_fit_their_patterns(document: dict[str, Any], name: str, made: list[str]) -> None:
    patterns = {
        parameter["schema"]["pattern"]
        for _, parameter in parameters(document)
        if (parameter["in"], parameter["name"]) == ("path", name)
    }
    (pattern,) = patterns
    for text in made:
        assert re.fullmatch(pattern, text), text


def test_a_page_s_cursor_fits_its_pattern(client: httpx.Client, document: dict[str, Any]) -> None:
    add_job()
    add_job()
    for path in ("/v1/jobs", "/v1/datasets"):
        cursor = client.get(path, params={"limit": 1}).json()["next_cursor"]
        (pattern,) = (
            parameter["schema"]["pattern"] for where, parameter in parameters(document) if where == f"get {path} cursor"
        )
        assert re.fullmatch(pattern, cursor)
        assert client.get(path, params={"limit": 1, "cursor": cursor}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs/validate", "/v1/models/mdl_x/predict", "/v1/models/job:job_x/predict"])
def test_a_path_of_its_own_is_not_taken_for_a_thing_beside_it(client: httpx.Client, path: str) -> None:
    assert "POST" in client.get(path).headers["allow"]
    problem(client.get(path), 405, "method_not_allowed")


# --- what comes ------------------------------------------------------------------------------------------------------


def test_every_media_type_of_an_artifact_is_in_the_document(
    client: httpx.Client, document: dict[str, Any], tmp_path: Path
) -> None:
    claim = start_job(add_job())
    names = [f"file{suffix}" for suffix in (*artifacts.MEDIA_TYPES, ".keras", ".html", "")]
    for name in names:
        keep(claim, tmp_path, name, b"{}")
    end_job(claim)
    (operation,) = (item["get"] for path, item in document["paths"].items() if path.endswith("/artifacts/{name}"))
    came = {client.get(f"/v1/jobs/{claim.job_id}/artifacts/{name}").headers["content-type"] for name in names}
    assert {*artifacts.MEDIA_TYPES.values(), "application/octet-stream"} == came
    for status in ("200", "206"):
        assert set(operation["responses"][status]["content"]) == came


def test_an_answer_s_fields_are_required_where_they_always_come(document: dict[str, Any]) -> None:
    found = document["components"]["schemas"]

    def named(node: Any) -> Iterator[str]:
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix("#/components/schemas/")
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from named(inner)

    seen: set[str] = set()
    ahead = {
        name
        for item in document["paths"].values()
        for operation in item.values()
        for name in named(operation["responses"])
    }
    while ahead:
        seen |= ahead
        ahead = {inner for name in ahead for inner in named(found[name])} - seen
    assert {"JobShape", "JobError", "ModelShape", "Manifest", "Schema", "ProblemShape"} <= seen
    partly = {name for name in seen if set(found[name].get("properties", ())) != set(found[name].get("required", ()))}
    figures = {
        "BoxesFigures",
        "ClassificationFigures",
        "EmbeddingFigures",
        "MultilabelFigures",
        "NextFigures",
        "RegressionFigures",
        "TagFigures",
    }
    kinds_own = {"PredictedByte", "Prediction", "DistillationReport", "MultitaskReport", "TransferReport", *figures}
    assert partly == {
        *kinds_own,
        "Baselines",
        "Export",
        "ExtraCost",
        "GapRecovered",
        "Inherited",
        "InputSchema",
        "Variance",
    }, "which leave out what has no meaning"


def test_a_report_that_is_answered_fits_the_schema_of_its_answer(
    client: httpx.Client, document: dict[str, Any], tmp_path: Path
) -> None:
    answers = document["paths"]["/v1/jobs/{job_id}/report"]["get"]["responses"]["200"]["content"]["application/json"]
    schema = jsonschema.Draft202012Validator({**answers["schema"], "components": document["components"]})
    claim = start_job(add_job())
    keep(claim, tmp_path, "report.json", REPORT.read_bytes())
    end_job(claim)
    answer = client.get(f"/v1/jobs/{claim.job_id}/report")
    assert answer.content == REPORT.read_bytes()
    assert schema.is_valid(answer.json())
    assert not schema.is_valid({**answer.json(), "decision": "perhaps"})


def test_the_parts_of_a_report_have_names_of_their_own(document: dict[str, Any]) -> None:
    found, parts = document["components"]["schemas"], schemas.of_reports()
    assert {name: found[name] for name in parts} == parts


def test_every_schema_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    """Generators of clients name a class by its schema's title."""
    found = document["components"]["schemas"]
    titles = [schema["title"] for schema in found.values() if "title" in schema]
    assert len(titles) == len(set(titles))
    assert {name for name, schema in found.items() if "title" not in schema} == {"JobSpec", "Report"}
    assert all(re.fullmatch(r"\w+", name) for name in found)
    assert {"TransferSpec", "PcgradWeighting", "CnnSmallArchitecture", "HeadSpec", "HeadSpecOutput"} <= set(found)


def test_the_schema_of_a_body_is_the_catalog_s(client: httpx.Client, document: dict[str, Any]) -> None:
    def within(node: Any) -> Any:
        return json.loads(json.dumps(node).replace("#/components/schemas/", "#/$defs/"))

    found = document["components"]["schemas"]
    kinds = client.get("/v1/catalog").json()["kinds"]
    assert set(found["JobSpec"]["discriminator"]["mapping"]) == set(kinds)
    for kind, entry in kinds.items():
        place = found["JobSpec"]["discriminator"]["mapping"][kind]
        assert {"$ref": place} in found["JobSpec"]["oneOf"]
        whole = dict(entry["schema"])
        parts = whole.pop("$defs", {})
        assert within(found[place.rpartition("/")[2]]) == whole
        for name, part in parts.items():
            assert within(found[name]) == part, name
