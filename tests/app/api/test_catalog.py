"""The catalog, the workers, health, docs, and the OpenAPI document."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import httpx
import jsonschema
import pytest

from app import db, queue, workers
from app.api import health
from app.settings import settings
from tests.app.api.conftest import problem, serving


def test_each_kind_has_a_schema_that_its_example_fits(client: httpx.Client) -> None:
    catalog = client.get("/v1/catalog").json()
    assert {"transfer", "multitask", "distillation"} <= set(catalog["kinds"])
    for name, kind in catalog["kinds"].items():
        jsonschema.Draft202012Validator.check_schema(kind["schema"])
        jsonschema.validate(kind["example"], kind["schema"])
        assert kind["example"]["kind"] == name
        assert kind["description"]


@pytest.mark.parametrize("kind", ["transfer", "multitask", "distillation"])
def test_each_example_can_be_submitted_as_it_is(client: httpx.Client, kind: str) -> None:
    example = client.get("/v1/catalog").json()["kinds"][kind]["example"]
    checked = client.post("/v1/jobs/validate", json=example)
    assert checked.status_code == 200, checked.text
    answer = client.post("/v1/jobs", json=example)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["spec"], job["resolved_spec"]) == (example, checked.json()["resolved_spec"])
    assert job["seed"] == job["resolved_spec"]["training"]["seed"]
    assert client.get(answer.headers["location"]).json()["id"] == job["id"]


def test_the_catalog_lists_what_the_registry_finds(client: httpx.Client) -> None:
    catalog = client.get("/v1/catalog").json()
    assert {"cnn", "cnn-small", "cnn-large", "mlp"} <= set(catalog["architectures"])
    assert {"equal", "fixed", "uncertainty", "dwa", "rlw", "gls", "imtl_l", "stch", "famo"} <= set(
        catalog["weightings"]
    )
    assert {"gradnorm", "mgda", "pcgrad", "cagrad"} <= set(catalog["weightings"])
    assert "logits" in catalog["objectives"]
    assert set(catalog["strategies"]) == {
        "fine_tuning",
        "feature_extraction",
        "lp_ft",
        "gradual_unfreezing",
        "lora",
        "initialize",
    }
    assert {"l2_sp", "bss"} <= set(catalog["regularizers"])
    assert {"hard_sharing", "mmoe", "cgc", "ple", "cross_stitch"} <= set(catalog["sharings"])
    assert {"digits", "strokes"} <= set(catalog["datasets"])
    for group in ("architectures", "weightings", "objectives", "regularizers", "datasets"):
        assert all(entry["description"] for entry in catalog[group].values())


def test_workers_are_listed_while_they_are_heard_of(client: httpx.Client) -> None:
    assert client.get("/v1/workers").json() == {"data": []}
    with db.transaction() as session:
        workers.hello(
            session,
            "w1",
            host="here",
            pid=7,
            device="cpu",
            device_name=None,
            memory_bytes=None,
            version="0",
            job_id=None,
        )
    [worker] = client.get("/v1/workers").json()["data"]
    assert (worker["id"], worker["host"], worker["pid"], worker["device"], worker["job"]) == (
        "w1",
        "here",
        7,
        "cpu",
        None,
    )


def test_health_has_the_version(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "version": health.version()}
    assert re.match(r"\d+\.\d+", health.version())


def test_ready_names_every_part(client: httpx.Client) -> None:
    answer = client.get("/readyz")
    assert {"memory", "cpu", "files", "core"} <= set(answer.json()["upload_walls"])
    body = answer.json()
    assert (answer.status_code, body["ready"]) == (200, True)
    assert (body["database"], body["broker"], body["migrations"], body["workers_online"]) == ("ok", "ok", "ok", 0)
    assert body["inference"] == "down"
    assert body["free_bytes"] > 0
    assert body["embedded"] is None


def test_it_is_not_ready_without_its_broker(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "broker_url", "redis://127.0.0.1:9/0")
    queue._redis.cache_clear()
    try:
        answer = client.get("/readyz")
    finally:
        queue._redis.cache_clear()
    assert (answer.status_code, answer.json()["ready"], answer.json()["broker"]) == (503, False, "down")


def test_a_database_of_our_own_is_said_to_trust_everybody(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "data", settings().data.parent)  # the folder that the tests' Postgres lies in
    assert client.get("/readyz").json()["embedded"] == "trust"


def test_the_docs_are_served_from_here_alone(client: httpx.Client) -> None:
    assert client.get("/").headers["location"] == "/docs"
    page = client.get("/docs")
    assert page.status_code == 200
    assert "://" not in re.sub(r"<!--.*?-->", "", page.text, flags=re.DOTALL)
    for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(path).status_code == 200, path
    problem(client.get("/docs/files/nothing.js"), 404, "not_found")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]


def test_the_docs_can_be_left_out(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.main import create_app

    monkeypatch.setattr(settings(), "docs", False)
    with serving(create_app()) as address, httpx.Client(base_url=address, trust_env=False) as client:
        for path in ("/", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"):
            problem(client.get(path), 404, "not_found")
        assert client.get("/v1/catalog").status_code == 200
        assert client.get("/problems/invalid").status_code == 200


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values())) if node else own
    return set().union(*map(references, node)) if isinstance(node, list) and node else set()


def test_the_openapi_document_is_whole(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= set(schemas)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and (path, status) != ("/readyz", "503"):
                    schema = answer["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ProblemShape"}, (method, path, status)
    assert "HTTPValidationError" not in schemas
    kinds = schemas["JobSpec"]["discriminator"]["mapping"]
    assert {"transfer", "multitask", "distillation"} <= set(kinds)
    for name, place in kinds.items():
        assert schemas[place.rpartition("/")[2]]["properties"]["kind"]["const"] == name
    assert set(schemas["ProblemShape"]["required"]) == set(schemas["ProblemShape"]["properties"])
