"""A report is what its model describes: real ones of every kind, byte for byte, and nothing besides."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from app import methods
from app.api import schemas
from app.spec import tasks
from app.spec.report import Report
from worker.training.scores.evaluate import scoring

FILES = sorted((Path(__file__).parent / "reports").glob("*.json"))
"""As trainers wrote them before reports were models."""

OPEN = {"architecture", "dropped_rows", "effect_on", "labels", "regularizer", "sharing", "weighting"}
"""Parts whose keys are names, of tasks or data sets, or a variant's own words."""


def kind_of(text: str) -> type[Report]:
    kind: type[Report] = methods.kinds()[json.loads(text)["kind"]].REPORT
    return kind


def objects(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every object of a JSON document."""
    if isinstance(node, dict):
        yield way
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from objects(inner, (*way, key))


def at(report: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        report = report[key]
    return report


def schema() -> jsonschema.Draft202012Validator:
    parts = schemas.of_reports()
    return jsonschema.Draft202012Validator({"$ref": "#/components/schemas/Report", "components": {"schemas": parts}})


def test_there_is_a_report_of_each_kind() -> None:
    described = {name for name, module in methods.kinds().items() if hasattr(module, "REPORT")}
    assert {path.stem.split("_")[0] for path in FILES} == described == {"distillation", "multitask", "transfer"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_report_goes_through_its_model_byte_for_byte(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert kind_of(text).model_validate_json(text).text() == text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_key_that_nobody_described_is_refused_by_the_model_and_by_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    report, published = json.loads(text), schema()
    assert published.is_valid(report)
    ways = {frozenset(at(report, way)): way for way in objects(report) if not OPEN & set(way)}  # one of each part
    assert len(ways) > 15
    for way in ways.values():
        more = copy.deepcopy(report)
        at(more, way)["unheard_of"] = 0
        with pytest.raises(ValidationError):
            kind_of(text).model_validate_json(json.dumps(more))
        assert not published.is_valid(more), way


@pytest.mark.parametrize("kind", ["distillation", "multitask", "transfer"])
def test_a_key_that_always_comes_is_missed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {name: module for name, module in methods.kinds().items() if hasattr(module, "REPORT")}
    monkeypatch.setattr(methods, "kinds", lambda: described)  # a plugin's report may be any object, without a kind too
    report = json.loads(next(path for path in FILES if path.stem == kind).read_text(encoding="utf-8"))
    published = schema()
    for key in report.keys() - {"distillation"}:
        rest = {name: value for name, value in report.items() if name != key}
        with pytest.raises(ValidationError):
            methods.kinds()[kind].REPORT.model_validate_json(json.dumps(rest))
        assert not published.is_valid(rest), key


def test_a_kind_without_a_description_answers_with_any_object(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = methods.kinds()
    described = {name: module for name, module in kinds.items() if hasattr(module, "REPORT")}
    monkeypatch.setattr(methods, "kinds", lambda: described)
    alone = schemas.of_reports()["Report"]
    assert set(alone["discriminator"]["mapping"]) == set(described)
    monkeypatch.setattr(methods, "kinds", lambda: {**described, "own": SimpleNamespace()})
    assert schema().is_valid({"kind": "own", "anything": 1})
    assert not schema().is_valid({"kind": "transfer", "anything": 1})
    assert "discriminator" not in schemas.of_reports()["Report"]


def test_every_field_is_described() -> None:
    silent = [
        f"{name}.{field}"
        for name, part in schemas.of_reports().items()
        if name not in ("BackboneUsed", "LoraUsed")  # a spec's own words
        for field, about in part.get("properties", {}).items()
        if not about.get("description")
    ]
    assert not silent


def test_the_metrics_are_those_that_are_measured() -> None:
    types = {"binary", "boxes", "embedding", "multiclass", "multilabel", "next_token", "regression", "tags"}
    assert set(tasks.names()) == types
    for name in tasks.names():
        assert set(tasks.of(name).METRICS) == set(scoring(name).METRICS)
