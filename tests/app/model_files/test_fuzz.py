"""Configs, graphs and files that chance has changed: the reader refuses them or reads them, and never does anything else."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.model_files import _layout
from app.model_files.config import walk
from app.spec import architectures, stock_layers
from app.spec.architectures import keras_graph
from app.spec.faults import Invalid
from tests.app.model_files import saved
from tests.app.model_files.hostile import ADVISORIES, BOMBS

QUICK, MANY = 3_000, 20_000
FEW_BYTES = 400
MODELS = (
    "operations",
    "nested",
    "shared",
    "pictures",
    "masked",
    "over_time",
    "attended",
    "cells",
    "gated_heads",
    "spectral",
    "weighed",
)
WORDS = (
    "Lambda",
    "os",
    "system",
    "keras.src.ops.numpy",
    "keras.layers",
    "Functional",
    "function",
    "__lambda__",
    "__numpy__",
    "ops.Map",
    "",
    "x/..",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**70,
    0.5,
    -1e308,
    float("inf"),
    [],
    {},
    [None],
    [[]],
    {"class_name": "x"},
)


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value within `node`."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


def at(node: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        node = node[key]
    return node


def mutated(config: Any, spots: list[tuple[Any, ...]], others: list[Any], chance: random.Random) -> Any:
    """A copy in which one to three values are another's, gone, of another type, or twice there."""
    config = copy.deepcopy(config)
    for _ in range(chance.randint(1, 3)):
        *above, key = chance.choice(spots)
        try:
            parent = at(config, tuple(above))
            value = parent[key]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
        if isinstance(parent, str):
            continue
        match chance.randrange(6):
            case 0:
                del parent[key]
            case 1:
                parent[key] = chance.choice(VALUES)
            case 2:
                parent[key] = chance.choice(WORDS)
            case 3:
                parent[key] = copy.deepcopy(chance.choice(others))
            case 4 if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(value))
            case 5 if isinstance(parent, dict):
                parent[chance.choice(WORDS)] = value
            case _:
                parent[key] = [value, value] if isinstance(value, (str, int, float)) else str(key)
    return config


@pytest.fixture(scope="module")
def configs() -> list[tuple[Any, list[tuple[Any, ...]]]]:
    found = [json.loads((saved.folder() / f"{name}.json").read_text()) for name in MODELS]
    return [(config, list(places(config))) for config in found]


def judged(config: Any) -> bool:
    """Whether a config was read. What comes of it holds no kind but the list's, is a sound graph, and can be paired with arrays."""
    try:
        walked = walk(config, {}, lambda _: {"vocabulary": [1, 2]})
    except Invalid as invalid:
        json.dumps([str(fault) for fault in invalid.faults])
        return False
    kinds = {layer["kind"] for layer in walked.graph["layers"].values()}
    assert kinds <= stock_layers.kinds()
    for place in walked.places:
        _layout.arrays(place.kind, place.config)
    try:
        architectures.resolve({**walked.graph, "kind": "table"})
    except Invalid as invalid:
        if [fault.pointer for fault in invalid.faults] != ["/features"]:  # which may be one of several tensors
            raise AssertionError(f"the walk made a graph that is not sound: {invalid}") from None
    return True


def run(configs: list[Any], seed: int, count: int) -> int:
    chance = random.Random(seed)
    others = [at(config, spot) for config, spots in configs for spot in chance.choices(spots, k=100)]
    others += [
        make()
        for name, make in {**ADVISORIES, **BOMBS}.items()
        if name not in ("many values", "a long text", "3,000 layers")
    ]
    read = 0
    for number in range(count):
        config, spots = configs[number % len(configs)]
        read += judged(mutated(config, spots, others, chance))
    return read


def test_a_changed_config_is_read_or_refused(configs: list[Any]) -> None:
    assert 0 < run(configs, 1, QUICK) < QUICK


@pytest.mark.slow
def test_twenty_thousand_changed_configs_are_read_or_refused(configs: list[Any]) -> None:
    assert 0 < run(configs, 2, MANY) < MANY


def test_a_changed_graph_of_a_job_is_taken_or_refused(configs: list[Any]) -> None:
    chance = random.Random(3)
    graphs = [walk(config, {}, lambda _: {"vocabulary": [1, 2]}).graph for config, _ in configs]
    all_spots = [list(places(graph)) for graph in graphs]
    others = [
        at(graph, spot) for graph, spots in zip(graphs, all_spots, strict=True) for spot in chance.choices(spots, k=20)
    ]
    for number in range(QUICK // 3):
        graph = mutated(graphs[number % len(graphs)], all_spots[number % len(graphs)], others, chance)
        try:
            spec = architectures.resolve(
                {**graph, "arch": "keras-graph", "kind": "table"} if isinstance(graph, dict) else "x"
            )
        except Invalid:
            continue
        assert isinstance(spec, keras_graph.Spec)
        assert {layer.kind for layer in spec.layers.values()} <= stock_layers.kinds()


@pytest.mark.parametrize("name", ["nested.keras", "nested.weights.h5"])
def test_a_file_with_changed_bytes_is_read_or_refused(name: str) -> None:
    chance = random.Random(4)
    file = (saved.folder() / name).read_bytes()
    form = "keras" if name.endswith(".keras") else "weights"
    for _ in range(FEW_BYTES):
        changed = bytearray(file)
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        cut = changed[: chance.randrange(len(changed))] if chance.random() < 0.2 else changed
        with contextlib.suppress(Invalid):
            saved.read(bytes(cut), form=form)


def test_a_safetensors_file_with_changed_bytes_is_read_or_refused() -> None:
    chance = random.Random(5)
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        }
    )
    file = len(header).to_bytes(8, "little") + header.encode() + bytes(range(32))
    told, arrays = saved.read(file, form="weights")
    assert [(array["name"], array["shape"]) for array in told["arrays"]] == [("a", [2, 3]), ("b", [4])]
    assert {name: (value.shape, value.dtype.name) for name, value in arrays.items()} == {
        "0": ((2, 3), "float32"),
        "1": ((4,), "float32"),
    }
    for _ in range(2_000):
        changed = bytearray(file)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        with contextlib.suppress(Invalid):
            saved.read(bytes(changed), form="weights")


def test_no_changed_file_left_anything_in_the_folder() -> None:
    assert {path.suffix for path in Path(saved.folder()).iterdir()} <= {".keras", ".json", ".npz", ".h5"}
