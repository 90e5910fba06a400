"""Parts of a spec that are one module out of several: typed where they come in, the same JSON as before where they go out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, TypeAdapter

from app import methods
from app.settings import settings
from app.spec.base import JobSpec, SpecModel, plain
from app.spec.faults import Fault, Invalid, validate
from app.spec.registry import TAGS, Kind, module_of, modules
from app.spec.variants import (
    AnyArchitecture,
    ArchitectureOrModel,
    Objective,
    Objectives,
    Regularizer,
    Sharing,
    Unfit,
    Weighting,
)
from worker.training.trainer import LocalLookup

FIELDS: list[tuple[Kind, Any]] = [
    ("weighting", Weighting),
    ("sharing", Sharing),
    ("regularizers", Regularizer),
    ("objectives", Objective),
    ("architectures", AnyArchitecture),
    ("architectures", ArchitectureOrModel),
]
EVERY = [(kind, field, name) for kind, field in FIELDS for name in sorted(modules(kind))]

TEACHER = {"train": {"dataset": "digits", "architecture": "cnn"}}
JOBS: list[dict[str, Any]] = [
    {"kind": "transfer", "dataset": "digits", "source": TEACHER, "regularizer": "l2_sp"},
    {"kind": "transfer", "dataset": "digits", "source": TEACHER, "strategy": "initialize", "architecture": "arch:cnn"},
    {
        "kind": "multitask",
        "dataset": "digits",
        "tasks": {"digit": {"teacher": TEACHER, "objectives": [{"type": "dkd"}, {"type": "hint"}]}, "odd": {}},
        "weighting": {"name": "stch", "mu": 0.5},
        "trunk": {"arch": "cnn-small", "dense": 8},
    },
    {"kind": "multitask", "dataset": "digits", "tasks": {"digit": {}, "odd": {}}, "sharing": "cgc", "experts": 2},
    {"kind": "distillation", "dataset": "digits", "teacher": TEACHER, "objectives": [{"type": "relational"}]},
]


class BuiltIns(LocalLookup):
    """The built-in data sets, without any model."""


def faults(field: Any, given: object) -> list[Fault]:
    with pytest.raises(Invalid) as caught:
        validate(field, given)
    return caught.value.faults


def parts(words: Any, way: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a spec, with its place."""
    yield way, words
    inner = words if isinstance(words, BaseModel) else words.items() if isinstance(words, dict) else ()
    for key, value in enumerate(words) if isinstance(words, list) else inner:
        yield from parts(value, f"{way}/{key}")


# --- what comes in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "field", "name"), EVERY)
def test_a_variant_becomes_its_module_s_spec_and_goes_out_as_the_same_json(kind: Kind, field: Any, name: str) -> None:
    module = modules(kind)[name]
    example = getattr(module, "EXAMPLE", {TAGS[kind]: name})
    words = validate(field, example)
    assert type(words) is module.Spec
    assert module_of(kind, words) is module
    said = TypeAdapter(field).dump_python(words, mode="json")
    assert said == plain(module.Spec.model_validate(example))
    assert validate(field, said) == words
    if field is not Objective and not any(part.is_required() for part in module.Spec.model_fields.values()):
        assert validate(field, name) == validate(field, {TAGS[kind]: name})


def test_the_strings_that_are_no_variant_stay_strings() -> None:
    assert validate(Regularizer, "none") == "none"
    for ref in ("job:job_1", "model:a b@2", "mdl_1", "job:"):
        assert validate(ArchitectureOrModel, ref) == ref
        assert [fault.code for fault in faults(AnyArchitecture, ref)] == ["unknown_name"]
    assert plain(validate(AnyArchitecture, "applications:MobileNetV2")) == plain(
        validate(AnyArchitecture, {"arch": "applications", "name": "MobileNetV2"})
    )


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        (Weighting, "equall", [("", "unknown_name", "did you mean 'equal'?")]),
        (Weighting, {"name": "equall", "T": 1}, [("/name", "unknown_name", "did you mean 'equal'?")]),
        (Weighting, {"T": 1}, [("/name", "unknown_name", None)]),
        (Weighting, {"name": 3}, [("/name", "unknown_name", None)]),
        (Weighting, {"name": "dwa", "T": 0, "t": 1}, [("/T", "greater_than", None), ("/t", "unknown_field", None)]),
        (Weighting, {"name": "stch", "mux": 1}, [("/mux", "unknown_field", "did you mean 'mu'?")]),
        (Weighting, {"name": "cagrad", "rescale": True}, [("/rescale", "literal_error", None)]),
        (Weighting, 3, [("", "string_type", None)]),
        (Weighting, None, [("", "string_type", None)]),
        (Sharing, {"name": "mmoe", "experts": True}, [("/experts", "int_type", None)]),
        (Objective, "logits", [("", "dict_type", None)]),
        (Objectives, [{"type": "logits"}, {"type": "hint", "layers": [["a"]]}], [("/1/layers/0", "too_short", None)]),
        (Regularizer, "non", [("", "unknown_name", "known regularizers: bss, l2_sp")]),
        (AnyArchitecture, "cn", [("", "unknown_name", "did you mean 'cnn'?")]),
        (AnyArchitecture, {"dense": 3}, [("/arch", "missing", None)]),
        (AnyArchitecture, {"arch": "cnn", "filters": [0]}, [("/filters/0", "greater_than_equal", None)]),
        (ArchitectureOrModel, "jobs:job_1", [("", "unknown_name", None)]),
    ],
)
def test_what_is_no_variant_is_refused_at_its_place(
    field: Any, given: object, expected: list[tuple[str, str, str | None]]
) -> None:
    found = faults(field, given)
    assert [(fault.pointer, fault.code) for fault in found] == [(place, code) for place, code, _ in expected]
    for fault, (_, _, hint) in zip(found, expected, strict=True):
        assert hint is None or str(fault.hint) == hint


def test_left_for_later_the_faults_are_those_that_are_raised_at_once() -> None:
    body = {"kind": "multitask", "tasks": {"a": {}}, "weighting": {"name": "dwa", "T": 0}, "trunk": "cn"}
    spec = methods.kinds()["multitask"].Spec
    later = validate(spec, body, later=True)
    assert isinstance(later.weighting, Unfit)
    told = [fault.under("/weighting") for fault in later.weighting.faults]
    told += [fault.under("/trunk") for fault in later.trunk.faults]
    assert sorted(faults(spec, body), key=lambda fault: fault.pointer, reverse=True) == told


def test_wrong_variants_are_named_together_with_all_else_and_hide_nothing() -> None:
    body = {
        "kind": "multitask",
        "dataset": "digts",
        "tasks": {"digit": {"teacher": {"train": {"dataset": "digits", "architecture": "cn"}}}, "odd": {"weight": -1}},
        "objectives": [{"type": "logit"}, {"type": "dkd", "alpha": -1}, {"type": "dist"}],
        "weighting": "equall",
        "sharing": {"name": "cgc", "expert": 1},
        "trunk": {"arch": "cnn", "dense": 0},
    }
    with pytest.raises(Invalid) as caught:
        methods.check(body, BuiltIns())
    assert {fault.pointer for fault in caught.value.faults} == {
        "/dataset",
        "/tasks/digit/teacher/train/architecture",
        "/tasks/odd/weight",
        "/objectives/0/type",
        "/objectives/1/alpha",
        "/weighting",
        "/sharing/expert",
        "/trunk/dense",
    }


def test_a_job_s_own_objectives_are_checked_where_no_task_learns_by_them() -> None:
    own = {"teacher": TEACHER, "objectives": [{"type": "logits"}]}
    body = {"kind": "multitask", "dataset": "digits", "tasks": {"digit": own}, "objectives": [{"type": "logit"}]}
    with pytest.raises(Invalid) as caught:
        methods.check(body, BuiltIns())
    assert [fault.pointer for fault in caught.value.faults] == ["/objectives/0/type"]


def test_a_method_that_does_not_look_at_a_variant_stores_none_that_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec(JobSpec):
        weightings: list[Weighting] = []

    careless = SimpleNamespace(Spec=Spec, resolve=lambda spec, lookup: spec)
    monkeypatch.setattr(methods, "kinds", lambda: {"careless": careless})
    assert methods.check({"kind": "careless", "weightings": ["equal"]}, BuiltIns())
    with pytest.raises(Invalid) as caught:
        methods.check({"kind": "careless", "weightings": ["equal", {"name": "dwa", "T": 0}]}, BuiltIns())
    assert [fault.pointer for fault in caught.value.faults] == ["/weightings/1/T"]


# --- what a resolved spec holds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [*(module.EXAMPLE for module in methods.kinds().values()), *JOBS])
def test_a_resolved_spec_is_typed_and_comes_back_from_its_json(body: dict[str, Any]) -> None:
    spec = methods.check(copy.deepcopy(body), BuiltIns())
    for place, value in parts(spec):
        field = place.rpartition("/")[2]
        if field in ("weighting", "sharing", "trunk", "architecture", "student"):
            assert isinstance(value, SpecModel), place
        if field == "objectives" and value is not None:
            assert all(isinstance(one, SpecModel) for one in value), place
        if field == "regularizer":
            assert value == "none" or isinstance(value, SpecModel), place
        assert not isinstance(value, Unfit), place
    stored = plain(spec)
    assert methods.restore(stored) == spec
    assert plain(methods.restore(stored)) == stored


def test_a_job_s_own_objectives_are_shown_as_they_were_given() -> None:
    body = {**JOBS[2], "tasks": {"digit": {"teacher": TEACHER}, "odd": {}}, "objectives": [{"type": "logits"}]}
    shown = plain(methods.check(body, BuiltIns()))
    assert shown["objectives"] == [{"type": "logits"}]
    assert shown["tasks"]["digit"]["objectives"] == [{"type": "logits", "weight": 0.9, "temperature": 4.0}]
    assert plain(methods.check(shown, BuiltIns())) == shown


# --- the schema ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "field", "name"), EVERY)
def test_the_schema_tells_variants_apart_by_name(kind: Kind, field: Any, name: str) -> None:
    schema = TypeAdapter(field).json_schema()
    check = jsonschema.Draft202012Validator(schema)
    assert check.is_valid(getattr(modules(kind)[name], "EXAMPLE", {TAGS[kind]: name}))
    assert check.is_valid(name) == (field is not Objective)
    assert not check.is_valid({TAGS[kind]: name, "unheard_of": 1})
    assert not check.is_valid(f"{name}x")
    choices = next(one for one in (schema, *schema.get("anyOf", ())) if "oneOf" in one)
    assert choices["discriminator"]["propertyName"] == TAGS[kind]
    assert set(choices["discriminator"]["mapping"]) == set(modules(kind))


def test_a_plugin_s_module_is_read_and_published_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "band" / "weighting" / "brass.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        '"""A weighting."""\nfrom typing import Literal\nfrom app.spec.base import SpecModel\n\n\n'
        'class Spec(SpecModel):\n    name: Literal["brass"] = "brass"\n    horns: int = 3\n'
    )
    assert [fault.code for fault in faults(Weighting, "brass")] == ["unknown_name"]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(settings(), "plugins", ["band"])
    assert plain(validate(Weighting, "brass")) == {"name": "brass", "horns": 3}
    schema = methods.kinds()["multitask"].Spec.model_json_schema()
    titles = {part["title"] for part in schema["$defs"].values()}
    assert {"BrassWeighting", "EqualWeighting"} <= titles
    body = {"kind": "multitask", "tasks": {"a": {}}, "weighting": {"name": "brass", "horns": 1}}
    assert jsonschema.Draft202012Validator(schema).is_valid(body)
    assert not jsonschema.Draft202012Validator(schema).is_valid({**body, "weighting": {"name": "brass", "horn": 1}})
