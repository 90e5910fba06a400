"""The published schema alone judges a body as the service does, in all that is its shape."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from app import applications

MUTATED = 240
SEED = 20

MEANING = {
    "input_mismatch",
    "invalid",
    "label_mismatch",
    "model_too_large",
    "no_map",
    "not_available",
    "nothing_copied",
    "teacher_incompatible",
    "too_many_epochs",
    "value_error",
    "weights_unavailable",
}
"""Codes of faults that no schema knows of: fields that do not go together, or with the data."""

NAMES = {"column", "dataset", "layers", "name", "primary", "regex", "target", "unlabelled", "until_layer", "model"}
"""Fields whose text names something that the database may have or not: no text is put in their place."""

WORDS: dict[str, Any] = {
    "transfer": {
        "architecture": {"arch": "cnn", "filters": [32, 64, 64], "dense": 64},
        "freeze": {"layers": ["conv1"]},
        "head": {"units": 8, "activation": "gelu"},
        "learning_rates": {"decay": 2.0},
        "regularizer": {"name": "l2_sp", "alpha": 0.2},
        "unfreeze": [{"epoch": 1, "layers": ["conv2"]}],
    },
    "multitask": {
        "sharing": {"name": "hard_sharing"},
        "trunk": {"arch": "cnn", "batch_norm": True},
        "weighting": {"name": "cagrad", "calpha": 0.4, "rescale": 2},
        "objectives": [{"type": "logits", "temperature": 2.0}],
    },
    "distillation": {
        "objectives": [{"type": "logits"}, {"type": "hint", "layers": [["conv1", "conv1"]], "projector": "auto"}],
        "student": {"arch": "cnn-small", "dense": 8},
        "export": ["keras"],
    },
}
"""What the examples leave unsaid."""

TRAINING = {
    "epochs": 30,
    "optimizer": {"name": "sgd", "momentum": 0.5},
    "augmentation": [{"type": "noise", "std": 0.1}],
    "early_stopping": {"patience": 3},
}


@pytest.fixture
def kinds(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/catalog").json()["kinds"]
    return {kind: found[kind] for kind in WORDS}


def bodies(kinds: dict[str, Any]) -> list[dict[str, Any]]:
    """The examples as they are, and with more words."""
    examples = [entry["example"] for entry in kinds.values()]
    more = [{**one, **WORDS[one["kind"]], "training": TRAINING} for one in examples]
    return [*examples, *applications.bodies().values(), *more]


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*way, key)
        yield from places(inner, (*way, key))


def other(value: Any, field: Any, rng: random.Random) -> Any:
    """Something else for a field: of another type, out of bounds, a near miss, or as good as what was there."""
    junk: list[Any] = [None, True, -1, 0, 2.5, 10**9, [], {}, [1], {"x": 1}]
    if field not in NAMES:
        junk += ["", "x", "none", "auto", f"{value}x", "cnn", "arch:mlp", "applications:VGG16", "pcgrad", "mmoe"]
        junk += [{"name": "dwa", "T": 2.0}, {"name": "dwa", "T": 0}, {"name": "bss"}, {"arch": "cnn"}, {"type": "dist"}]
        junk += [
            {"name": "mmoe"},
            {"name": "cgc", "experts": True},
            {"arch": "mlp", "units": []},
            {"type": "hint", "layers": []},
        ]
        junk += ["l2_sp", "equal", "cosine", "imagenet", {"train": {"dataset": "digits"}}, {"applications": "Xception"}]
    if isinstance(value, (int, float)):
        junk = [*junk[:7], value + 1, -value, value * 1.5]
    # A whole number with a point is an integer to JSON Schema and none to the service.
    return rng.choice([one for one in junk if not (isinstance(one, float) and one.is_integer())])


def mutate(body: dict[str, Any], rng: random.Random) -> None:
    *way, last = rng.choice([way for way in places(body) if way[0] != "kind"])
    field = next(key for key in (last, *reversed(way)) if isinstance(key, str))
    at: Any = body
    for key in way:
        at = at[key]
    match rng.choice(["other", "other", "other", "gone", "gone", "renamed", "added"]):
        case "gone":
            del at[last]
        case "renamed" if isinstance(at, dict) and last not in ("tasks", "digit", "odd", "at_least_5"):
            at[f"{last}x"] = at.pop(last)
        case "added" if isinstance(at, dict):
            word = rng.choice(["T", "experts", "layers", "mu", "weight", "alpha", "seed", "unheard of"])
            at[word] = other(1, "", rng)
        case _:
            at[last] = other(at[last], field, rng)


def of_shape(fault: dict[str, Any], kind: str) -> bool:
    """Whether a fault is one of form alone."""
    if kind == "multitask" and fault["pointer"] in ("/experts", "/experts_per_task"):
        return bool(fault["code"].endswith("_type"))  # short for numbers of the sharing, which may have none such
    if fault["pointer"] == "/control/primary":
        return False  # the name of a task, which a mutation may have taken away
    if fault["code"] == "missing" and fault["pointer"].startswith("/tasks/"):
        return False  # a task's data set may be the job's
    return fault["code"] not in MEANING


@pytest.mark.slow
def test_the_schema_alone_judges_the_examples_and_mutated_bodies_as_the_service_does(
    client: httpx.Client, kinds: dict[str, Any]
) -> None:
    rng = random.Random(SEED)
    checks = {kind: jsonschema.Draft202012Validator(entry["schema"]) for kind, entry in kinds.items()}
    whole = bodies(kinds)
    judged = Counter[bool]()
    disagreed = []
    for number in range(len(whole) + MUTATED):
        body = copy.deepcopy(whole[number % len(whole)])
        for _ in range(0 if number < len(whole) else rng.choice([1, 1, 2])):
            mutate(body, rng)
        answer = client.post("/v1/jobs/validate", json=body)
        assert answer.status_code in (200, 422), answer.text
        faults = [fault for fault in answer.json().get("errors", ()) if of_shape(fault, body["kind"])]
        fits = checks[body["kind"]].is_valid(body)
        judged[fits] += 1
        if fits == bool(faults):
            disagreed.append((body, faults))
    assert not disagreed, disagreed[:3]
    assert min(judged.values()) >= 40, judged


def test_no_part_of_a_spec_is_left_open(kinds: dict[str, Any]) -> None:
    """Whatever a form or a generator must ask for is described: no field is just any object."""

    def nodes(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            yield node
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from nodes(inner)

    for entry in kinds.values():
        for node in nodes({**entry["schema"], "example": None}):
            if node.get("type") == "object":
                others = node["additionalProperties"]
                assert others is False if "properties" in node else others not in (True, {}), node
            for name, field in node.get("properties", {}).items() if isinstance(node.get("properties"), dict) else ():
                assert {"type", "anyOf", "oneOf", "$ref", "const", "enum"} & set(field), (node.get("title"), name)
            assert "items" not in node or node["items"], node
