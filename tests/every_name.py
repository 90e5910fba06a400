"""Every name that the catalog offers, and a tiny job that uses it.

The names are the catalog's own: its sections, and each word among which a kind's schema lets one choose. A new file, or a new choice, is
here unasked. What fits no recipe below raises, so that its test fails until `job_with` knows how to use it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from app import applications
from app.api import catalog
from app.data import builtins, messages
from app.spec import exports
from app.spec.architectures.applications import PREFIX
from app.spec.registry import modules

GAUGES = "ds_gauges"
"""Stands for the upload that `write_gauges` makes: a table with a column of every type, and columns to split by."""

NOTES = "ds_notes"
"""Stands for the upload that `write_notes` makes: a few short texts, so that the largest networks answer all of them in no time."""

UPLOADS = (GAUGES, NOTES)

MLP = {"arch": "mlp", "units": [6, 4]}
QUICK = {"steps": 8, "batch_size": 32}
SOON = {"steps": 2, "batch_size": 32}
"""Of a source or a teacher: its batches are its target's, which is what a network is compiled for."""

TABLE = {"dataset": GAUGES, "target": "site", "architecture": MLP, "training": SOON}
DIGITS = {"dataset": "digits", "target": "digit", "limit_train_examples": 60}
MESSAGES = {"dataset": "messages", "target": "topic", "limit_train_examples": 60, "training": SOON}
TEXTS = {"dataset": NOTES, "target": "topic", "training": SOON}
TONES = {"dataset": "tones", "target": "pattern", "limit_train_examples": 60, "training": SOON}
PARCELS = {"dataset": "parcels", "target": "service", "limit_train_examples": 60, "training": SOON}
SHAPES = {
    "dataset": "shapes",
    "target": "boxes",
    "limit_train_examples": 60,
    "architecture": "resnet-8",
    "training": SOON,
}
PICTURES = {**DIGITS, "architecture": "cnn-small", "training": SOON}
ENCODER = "text-encoder-small"
TAGS = {
    "dataset": "bookings",
    "target": "tags",
    "limit_train_examples": 60,
    "source": {"train": {"dataset": "bookings", "target": "tags", "architecture": ENCODER, "training": SOON}},
}

SPEAKER = {**MESSAGES, "target": "next_token", "architecture": "causal-transformer-small"}
NEXT_TOKEN = {
    "dataset": "messages",
    "target": "next_token",
    "limit_train_examples": 60,
    "source": {"train": SPEAKER},
}

BASES: dict[str, dict[str, Any]] = {
    "transfer": {
        "kind": "transfer",
        "dataset": GAUGES,
        "target": "site",
        "source": {"train": TABLE},
        "training": QUICK,
    },
    "multitask": {
        "kind": "multitask",
        "dataset": GAUGES,
        "tasks": {"site": {}, "level": {}},
        "trunk": MLP,
        "training": QUICK,
    },
    "distillation": {
        "kind": "distillation",
        "dataset": GAUGES,
        "target": "site",
        "teacher": {"train": TABLE},
        "student": MLP,
        "training": QUICK,
    },
}

TAUGHT_SOUNDS = {
    "dataset": "tones",
    "target": "pattern",
    "limit_train_examples": 60,
    "teacher": {"train": {**TONES, "architecture": "audio-cnn-small"}},
    "student": "audio-cnn-small",
}
TAUGHT_PICTURES = {**DIGITS, "teacher": {"train": PICTURES}, "student": "cnn-small"}

FEW_EVALUATED = {"train": 0.94, "validation": 0.02, "test": 0.04}
"""How a large data set is divided: to answer its rows takes longer than to train on sixty of them."""

OF_ITS_OWN = {
    "architecture",
    "objectives",
    "regularizer",
    "sharing",
    "strategy",
    "student",
    "trunk",
    "weighting",
    "device",
}
"""Words that are a section of the catalog; and where a job runs, which is the worker's affair and not the trainer's."""

COMPANY: dict[str, dict[str, Any]] = {
    "cache_features=true": {"strategy": "feature_extraction"},
    "control.budget=total": {"control": {"seeds": 1}},
    "head.activation": {"head": {"units": 3}},
    "lora": {"strategy": "lora"},
    "source.applications": {**DIGITS, "source": {"weights": "none"}},
    "source.each_seed": {"source": {"train": TABLE}},
    "split.by=column": {"split": {"column": "part"}},
    "split.by=group": {"split": {"column": "family"}},
    "split.by=time": {"split": {"column": "level"}},
    "tasks.site.standardize": {"tasks": {"site": {"column": "level"}}},
    "tasks.site.type=binary": {"tasks": {"site": {"column": "alarm"}}},
    "target_type=binary": {"target": "alarm"},
    "target_type=boxes": {
        "dataset": "shapes",
        "target": "boxes",
        "limit_train_examples": 60,
        "source": {"train": SHAPES},
    },
    "tasks.site.type=boxes": {
        "dataset": "shapes",
        "tasks": {"site": {"column": "boxes"}, "level": {"column": "main"}},
        "trunk": "resnet-8",
    },
    "target_type=embedding": {"target": "family", "split": {"by": "group", "column": "family"}},
    "target_type=multilabel": {"target": "signs"},
    "target_type=regression": {"target": "level"},
    "target_type=next_token": NEXT_TOKEN,
    "target_type=tags": TAGS,
    "tasks.site.type=embedding": {
        "tasks": {"site": {"column": "family"}},
        "split": {"by": "group", "column": "family"},
    },
    "tasks.site.type=multilabel": {"tasks": {"site": {"column": "signs"}}},
    "tasks.site.type=regression": {"tasks": {"site": {"column": "level"}}},
    "tasks.site.type=next_token": {
        "dataset": "messages",
        "limit_train_examples": 60,
        "tasks": {"site": {"column": "next_token"}, "level": {"column": "topic"}},
        "trunk": "causal-transformer-small",
    },
    "tasks.site.type=tags": {
        "dataset": "bookings",
        "tasks": {"site": {"column": "tags"}, "level": {"column": "intent"}},
        "trunk": ENCODER,
    },
    "training.augmentation": TAUGHT_PICTURES,
    "training.augmentation.type=token_dropout": {
        "dataset": "messages",
        "target": "topic",
        "limit_train_examples": 60,
        "teacher": {"train": {**MESSAGES, "architecture": "text-cnn-small"}},
        "student": "text-cnn-small",
    },
    "training.augmentation.type=time_shift": TAUGHT_SOUNDS,
    "training.augmentation.type=spec_augment": TAUGHT_SOUNDS,
}
"""What goes with a word, by the beginning of its name without the kind: what is refused or without effect alone."""


def names() -> list[tuple[str, str]]:
    """(section, name) of all that is offered."""
    offered = _catalog()
    found = [(section, name) for section, entries in offered.items() for name in entries]
    return found + [("words", name) for name in words(offered)]


def job_with(section: str, name: str) -> dict[str, Any]:
    """The body of a job of a few steps that uses `name`. Data sets are built in, or of `UPLOADS`."""
    body = _job_with(section, name)
    large = body["dataset"] not in UPLOADS and builtins.schema(body["dataset"]).input.kind != "table"
    return {**body, "split": {**FEW_EVALUATED, **body.get("split", {})}} if large else body


def _job_with(section: str, name: str) -> dict[str, Any]:
    match section:
        case "kinds":
            return dict(_hurried(modules("methods")[name].EXAMPLE))
        case "applications":
            return {**_hurried(applications.bodies()[name]), "control": {"seeds": 0}}
        case "architectures":
            module = modules("architectures")[name]
            where = {"image": PICTURES, "text": TEXTS, "audio": TONES, "multimodal": PARCELS}.get(
                module.Spec.inputs, TABLE
            )
            return _transfer_within({**where, "architecture": getattr(module, "EXAMPLE", name)})
        case "datasets":
            schema = builtins.schema(name)
            if schema.target == "boxes":
                return _transfer_within(SHAPES)
            kind, tagged = schema.input.kind, schema.columns[schema.target or ""].type == "tags"
            usual = {"image": "cnn-small", "table": MLP, "multimodal": "late-fusion-small"}
            small = ENCODER if tagged else usual.get(kind, f"{kind}-cnn-small")
            return _transfer_within(
                {"dataset": name, "limit_train_examples": 60, "architecture": small, "training": SOON}
            )
        case "strategies":
            return {**BASES["transfer"], "strategy": name}
        case "regularizers":
            return {**BASES["transfer"], "regularizer": modules("regularizers")[name].EXAMPLE}
        case "weightings":
            soon = {"warmup_epochs": 1} if name == "stch" else {}  # else its few epochs would all be warm-up
            return {**BASES["multitask"], "weighting": {**modules("weighting")[name].EXAMPLE, **soon}}
        case "sharings":
            return {**BASES["multitask"], "sharing": name}
        case "objectives":
            return {**BASES["distillation"], **TAUGHT_PICTURES, "objectives": [modules("objectives")[name].EXAMPLE]}
        case "words":
            kind, _, word = name.partition(".")
            return _with_word(BASES[kind], word, _words()[name])
    raise AssertionError(f"no recipe for the {section} of the catalog: tests/every_name.py needs one")


def large(section: str, name: str) -> bool:
    """Whether it takes a minute and not seconds: networks of millions of numbers, all alike in what is ours."""
    return section == "words" and ".source.applications=" in name


def refused(section: str, name: str) -> bool:
    """Whether this installation cannot do it, and says so: a format whose packages are not there."""
    if section != "words":
        return False
    formats = _words()[name].get("export", [])
    return any(exports.unavailable(one) is not None for one in formats)


def words(offered: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"KIND.WHERE=VALUE": what it adds to a body} of the choices in the kinds' schemas, each once: where it comes first and least deep.

    What is the default is used by every other job.
    """
    found: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for kind, entry in offered["kinds"].items():
        for choice in sorted(_choices(entry["schema"], entry["schema"]), key=lambda one: len(one.path)):
            key = f"{choice.place}={json.dumps(choice.value)}"
            if (
                key in seen
                or not OF_ITS_OWN.isdisjoint(choice.path)
                or choice.path[0] == "kind"
                or _is_short(choice.value)
            ):
                continue
            seen.add(key)
            if not choice.default:
                value = choice.value if isinstance(choice.value, str) else json.dumps(choice.value)
                found[f"{kind}.{'.'.join(choice.path)}={value}"] = choice.body
    return found


def _is_short(value: Any) -> bool:
    """Whether it is an object in short: "applications:NAME" is {"applications": NAME}, whose names are offered too."""
    return isinstance(value, str) and value.startswith(PREFIX)


def write_gauges(path: Path) -> None:
    """An npz as a client would upload it: 120 rows of five numbers, and a column of every type."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 5)).astype(np.float32)
    np.savez(
        path,
        x=x,
        site=np.array(["hill", "lake", "wood"])[x[:, :3].argmax(axis=1)],
        alarm=x[:, 3] > 0,
        level=(20 + 3 * x[:, 4]).astype(np.float32),
        signs=(x[:, :3] > 0).astype(np.uint8),
        family=np.arange(120, dtype=np.int64) // 6,
        part=np.array(["train", "train", "train", "validation", "test", "test"])[np.arange(120) % 6],
    )


def write_notes(path: Path) -> None:
    """A CSV as a client would upload it, with `NOTES_ASKED`: the beginnings of 90 messages, and their topics."""
    texts, topics, _ = messages.make(90)
    lines = [f'"{words}",{messages.TOPICS[topic]}' for words, topic in zip(texts, topics, strict=True)]
    path.write_text("\n".join(["body,topic", *lines]))


NOTES_ASKED = {"inputs": ["body:text"], "targets": ["topic"], "length": 32}


@cache
def _catalog() -> dict[str, Any]:
    """As the API gives it, which is left as it was: tests that come later add packages of their own."""
    offered: dict[str, Any] = catalog.get_catalog().model_dump(by_alias=True)
    catalog._catalog.cache_clear()
    return offered


@cache
def _words() -> dict[str, dict[str, Any]]:
    return words(_catalog())


@dataclass(frozen=True)
class Choice:
    """One of a closed list of values. `place`: where that list is defined; `body`: an object with the value at `path`."""

    place: str
    path: tuple[str, ...]
    value: Any
    default: bool
    body: Any


def _choices(schema: Any, whole: Mapping[str, Any], place: str = "", optional: bool = False) -> Iterator[Choice]:
    """All that a JSON schema leaves to choose from closed lists; `optional`: by default it is not even said."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from _choices(whole["$defs"][name], whole, name, optional)
        return
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    for value in [True, False] if schema.get("type") == "boolean" else values:
        yield Choice(place, (), value, not optional and schema.get("default") == value, value)
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        default = {"default": schema["default"]} if "default" in schema else {}
        yield from _choices({**default, **one}, whole, place, optional or "$ref" in one)
    if "items" in schema:
        for inner in _choices(schema["items"], whole, place, optional):
            yield replace(inner, body=[inner.body])
    for named in (schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()):
        if isinstance(named, dict):
            for inner in _choices(named, whole, place, optional):
                yield replace(inner, path=("site", *inner.path), body={"site": inner.body})
    properties = schema.get("properties", {})
    fixed = {name: one["const"] for name, one in properties.items() if "const" in one}
    for name, one in properties.items():
        # What an object is goes with all that it says: naming it alone is to say its defaults.
        unsaid = optional if name in fixed else optional and not fixed
        for inner in _choices(one, whole, f"{place}.{name}", unsaid):
            yield replace(inner, path=(name, *inner.path), body={**fixed, name: inner.body})


def _with_word(base: dict[str, Any], word: str, added: Mapping[str, Any]) -> dict[str, Any]:
    body = {**base, "tasks": {"site": {}}} if "tasks" in added else base
    body = {**body, "source": {}} if "source" in added else body
    for beginning, more in COMPANY.items():
        if word.startswith(beginning):
            body = _merged(body, more)
    return _merged(body, added)


def _merged(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _transfer_within(stage: dict[str, Any]) -> dict[str, Any]:
    """From a data set to itself: the architecture is the source's."""
    same = {key: stage[key] for key in ("dataset", "target", "limit_train_examples") if key in stage}
    return {"kind": "transfer", **same, "source": {"train": stage}, "training": {"steps": 3, "batch_size": 32}}


def _hurried(body: Any) -> Any:
    """The same with budgets of a few steps."""
    if isinstance(body, dict):
        return {key: {"steps": 3} if key == "training" else _hurried(value) for key, value in body.items()}
    return [_hurried(one) for one in body] if isinstance(body, list) else body
