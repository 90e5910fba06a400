"""Models that plain Keras saved, as graphs and arrays."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from app.model_files import json_text
from app.model_files.config import walk
from app.spec import architectures
from app.spec.architectures import keras_graph
from app.spec.faults import Invalid
from tests.app.model_files import saved
from tests.app.model_files.configs import INPUT, functional_twice, layer, sequential

NAMES = re.findall(r'^    "(\w+)":', saved.PROGRAM.read_text(), re.MULTILINE)
LARGE = ("convnext_block", "mobilenet")
SIDES = {"any_size": {"picture": [8, 8, 3]}}


def file_of(name: str) -> bytes:
    return (saved.folder() / f"{name}.keras").read_bytes()


def graph(name: str) -> dict[str, Any]:
    answer, _ = saved.read(file_of(name), SIDES.get(name))
    return answer["graph"]


def faults_of(file: bytes, sides: Any = None) -> list[tuple[str, str, Any]]:
    with pytest.raises(Invalid) as caught:
        saved.read(file, sides)
    return [(fault.pointer, fault.message, fault.hint and str(fault.hint)) for fault in caught.value.faults]


def holds(name: str, folder: Any) -> None:
    file = (folder / f"{name}.keras").read_bytes()
    answer, arrays = saved.read(file, SIDES.get(name))
    wanted = saved.expected(folder / f"{name}.npz")
    assert {key: value.shape for key, value in arrays.items()} == {key: value.shape for key, value in wanted.items()}
    for key, value in wanted.items():
        assert arrays[key].dtype == value.dtype
        assert np.array_equal(arrays[key], value), key
    spec = architectures.resolve({**answer["graph"], "kind": "table"})
    assert architectures.resolve(architectures.as_data(spec)) == spec
    alone = walk(
        json_text.parsed((folder / f"{name}.json").read_bytes()), SIDES.get(name), lambda _: {"vocabulary": [1]}
    )
    assert alone.graph["calls"] == answer["graph"]["calls"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LARGE])
def test_each_layer_has_its_own_arrays(name: str) -> None:
    holds(name, saved.folder())


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_each_layer_of_a_large_network_has_its_own_arrays(name: str) -> None:
    holds(name, saved.folder("large"))


def test_operations_slices_and_constants_are_plain_data() -> None:
    answer, _ = saved.read(file_of("operations"))
    assert answer["graph"]["given"] == [{"name": "seq", "shape": [5, 4]}, {"name": "x", "shape": [8]}]
    layers, calls = answer["graph"]["layers"], {call["name"]: call for call in answer["graph"]["calls"]}
    assert layers["d"] == {"kind": "Dense", "config": {"units": 4, "activation": "relu"}}
    assert layers["mean"] == {"kind": "ops.Mean", "config": {"axis": 1, "keepdims": True}}
    assert layers["split"] == {"kind": "ops.Split", "config": {"indices_or_sections": 2, "axis": -1}}
    assert calls["add"]["args"] == [{"tensor": "d"}, {"tensor": "l"}]
    assert calls["get_item"]["args"] == [{"tensor": "add"}, [{"slice": [None, None, None]}, {"slice": [1, 3, None]}]]
    assert calls["get_item_1"]["args"] == [{"tensor": "where"}, [{"ellipsis": True}, None]]
    assert calls["multiply"]["args"] == [
        {"tensor": "split", "output": 1},
        {"array": [1.0, 2.0, 3.0], "dtype": "float32"},
    ]
    assert answer["outputs"] == [["o", {"tensor": "get_item_1"}], ["p", {"tensor": "mean"}]]
    assert answer["notes"] == ["regularizers and constraints are not taken over (d)"]


def test_a_nested_model_that_is_called_twice_has_its_layers_called_twice() -> None:
    made = graph("nested")
    assert [(call["name"], call["layer"]) for call in made["calls"]] == [
        ("inner-d", "inner-d"),
        ("inner-d-activation", "inner-d-activation"),
        ("inner-o", "inner-o"),
        ("inner-d-2", "inner-d"),
        ("inner-d-activation-2", "inner-d-activation"),
        ("inner-o-2", "inner-o"),
        ("a_b", "a_b"),
        ("two-d", "two-d"),
        ("two-e", "two-e"),
    ]
    assert made["calls"][3]["args"] == [{"tensor": "inner-o"}]
    assert made["calls"][7]["args"] == made["calls"][8]["args"] == [{"tensor": "a_b"}]


def test_a_shared_layer_has_two_calls_and_one_set_of_arrays() -> None:
    answer, arrays = saved.read(file_of("shared"))
    assert answer["graph"] == {
        "arch": "keras-graph",
        "given": [{"name": "a", "shape": [4]}, {"name": "b", "shape": [4]}],
        "layers": {"d": {"kind": "Dense", "config": {"units": 3}}, "s": {"kind": "Subtract"}},
        "calls": [
            {"name": "d", "layer": "d", "args": [{"tensor": "a"}]},
            {"name": "d-2", "layer": "d", "args": [{"tensor": "b"}]},
            {"name": "s", "layer": "s", "args": [[{"tensor": "d"}, {"tensor": "d-2"}]]},
        ],
        "features": "s",
    }
    assert list(arrays) == ["d/0", "d/1"]


def test_a_model_over_time_is_its_layers_over_time() -> None:
    made = graph("over_time")
    conv = {"kind": "Conv2D", "config": {"filters": 2, "kernel_size": [3, 3]}}
    assert made["layers"]["t-c"] == {"kind": "TimeDistributed", "config": {"layer": conv}}
    assert [call["layer"] for call in made["calls"]] == ["t-c", "t-f", "l"]


def test_whole_numbers_and_what_lies_beside_the_config() -> None:
    assert graph("masked")["given"] == [{"name": "ids", "shape": [8], "integers": True}]
    assert [call["layer"] for call in graph("masked")["calls"]] == ["e", "body-l", "body-g"]
    assert graph("looked_up_adapted")["layers"]["lookup"]["config"]["vocabulary"] == [-1, 3, 2, 1]
    config = graph("weighed")["layers"]["lookup"]["config"]
    assert config["vocabulary"] == [-1, 3, 2, 1]
    assert len(config["idf_weights"]) == 4


def test_other_types_of_numbers_become_float32_and_this_is_said() -> None:
    for name in ("mixed", "brain_floats"):
        answer, arrays = saved.read(file_of(name))
        assert {value.dtype.name for value in arrays.values()} == {"float32"}
        assert answer["notes"][0].startswith("numbers of other types than float32 become float32 (")


def test_sides_that_the_config_leaves_open_are_the_callers_to_say() -> None:
    (fault,) = faults_of(file_of("any_size"))
    assert fault == ("/inputs/picture", "the model leaves sides open: [any, any, 3]", "say the shape of a row")
    filled, _ = saved.read(file_of("any_size"), {"*2": [24, 16], "*1": [9]})
    assert filled["graph"]["given"] == [{"name": "picture", "shape": [24, 16, 3]}]
    for told in ([8, 8, 1], [8, 8], [8, 0, 3], [8, 8, 2**40], ["8", 8, 3]):
        assert faults_of(file_of("any_size"), {"picture": told})[0][0] == "/inputs/picture"
    answer, _ = saved.read(file_of("any_size"), {"picture": [16, 12, 3]})
    assert answer["graph"]["given"] == [{"name": "picture", "shape": [16, 12, 3]}]


def walk_faults(config: Any) -> list[tuple[str, str, Any]]:
    with pytest.raises(Invalid) as caught:
        walk(config)
    return [(fault.pointer, fault.message, fault.hint and str(fault.hint)) for fault in caught.value.faults]


def test_all_that_cannot_be_taken_over_is_said_at_once_with_a_way_out() -> None:
    config = sequential(
        INPUT,
        layer("Lambda", "λ/1", function="x"),
        layer("Dense", "d", units=2**40, activation="no_such", extra=3),
        layer("LSTM", "l", units=3, stateful=True),
        layer("TextVectorization", "t"),
        layer("Dens", "e"),
        {**layer("Dense", "f", units=3), "registered_name": "mine>Dense"},
        layer("Conv2D", "g", filters=2, kernel_size=[3, 3], data_format="channels_first"),
    )
    found = walk_faults(config)
    assert [pointer for pointer, *_ in found] == [
        "/config/layers/1/class_name",
        "/config/layers/2/config/activation",
        "/config/layers/2/config/extra",
        "/config/layers/2/config/units",
        "/config/layers/3/config/stateful",
        "/config/layers/4/class_name",
        "/config/layers/5/class_name",
        "/config/layers/6",
        "/config/layers/7/config/data_format",
    ]
    assert found[0][1] == "layer '1': not a layer that this service builds"
    assert "cut it off" in found[0][2]
    assert found[6][2] == "did you mean 'Dense'?"


def test_a_model_that_was_never_built_is_asked_to_be() -> None:
    ((pointer, message, hint),) = walk_faults(sequential(layer("Dense", "d", units=3)))
    assert (pointer, message) == ("/config/config", "the model has no input shape, it was never built")
    assert "model.build" in hint


def test_keras_2_is_pointed_to_keras_3() -> None:
    config = {
        "class_name": "Sequential",
        "config": {"name": "m", "layers": []},
        "keras_version": "2.15.0",
        "backend": "tensorflow",
    }
    assert walk_faults(config) == [("", "a config of Keras 2", "open it in Keras 3 and save it as .keras")]
    parts = saved.members(file_of("pictures"))
    parts["metadata.json"] = json.dumps({"keras_version": "2.15.0"}).encode()
    assert faults_of(saved.packed(parts)) == [
        ("/metadata.json", "saved by Keras 2", "open it in Keras 3 and save it as .keras")
    ]
    assert "Keras 2" in faults_of(b"\x89HDF\r\n\x1a\n" + bytes(100))[0][1]


def test_names_are_made_valid_and_each_is_given_once() -> None:
    made = walk(
        sequential(
            INPUT,
            layer("Dense", "a/b", units=4),
            layer("Dense", "a:b", units=4),
            layer("Dense", "_" * 300, units=4),
            layer("Dense", "ä" * 300, units=4),
            sequential(INPUT, layer("Dense", "y", units=4), name="a"),
            layer("Dense", "a-y", units=4),
        )
    ).graph
    assert list(made["layers"]) == ["a_b", "a_b-2", "Dense", "Dense-2", "a-y", "a-y-2"]
    keras_graph.Spec.model_validate(made)


def test_what_unfolds_without_end_is_refused() -> None:
    model = sequential(INPUT, layer("Dense", "d", units=4))
    for deep in range(14):
        model = functional_twice(model, f"m{deep}")
    assert "more than 2000" in walk_faults(model)[0][1]


def test_models_that_call_one_another_are_counted_even_where_they_hold_no_layer() -> None:
    model = functional_twice(layer("Dense", "d", units=4), "m")
    model["config"]["layers"].pop()
    model["config"]["output_layers"] = ["x", 0, 0]
    for deep in range(14):
        model = functional_twice(model, f"m{deep}")
    assert "more than 2000" in walk_faults(model)[0][1]


def test_a_circle_of_layers_is_refused() -> None:
    model = functional_twice(layer("Dense", "i", units=4), "m")
    nodes = model["config"]["layers"][1]["inbound_nodes"]
    nodes[0]["args"][0]["config"]["keras_history"] = ["i", 1, 0]
    assert walk_faults(model) == [
        ("/config", "its layers wait for one another in a circle", "open it in Keras 3 and save it as .keras")
    ]


def test_a_config_is_the_same_from_json_and_from_a_file() -> None:
    text = (saved.folder() / "pictures.json").read_bytes()
    answer, arrays = saved.read(text, form="config")
    assert answer["graph"] == graph("pictures")
    assert arrays == {}
    assert json.loads(json.dumps(answer["graph"])) == answer["graph"]
