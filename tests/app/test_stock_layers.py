"""The list of stock layers against the installed Keras, and what the judge says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.model_files._names import snake_case
from app.spec import architectures, stock_layers
from app.spec.architectures import keras_graph
from app.spec.faults import Invalid
from tests import plain_keras

SIGNATURES = """
import importlib, inspect, json, sys
import keras
kinds = json.load(open(sys.argv[1]))
def plain(value):
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
def default(parameter):
    if parameter.default is inspect.Parameter.empty:
        return "required"
    return ["default", plain(parameter.default)]
told = {}
for kind, module in kinds.items():
    found = getattr(importlib.import_module(module), kind.removeprefix("ops."))
    own = inspect.signature(found.__init__).parameters
    told[kind] = {
        "arguments": {name: default(p) for name, p in own.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)},
        "snake": keras.src.utils.naming.to_snake_case(found.__name__),
        "call": list(inspect.signature(found.call).parameters),
        "layer": issubclass(found, keras.layers.Layer),
    }
functions = [name for name in dir(keras.activations) if inspect.isfunction(getattr(keras.activations, name))]
json.dump({"kinds": told, "activations": functions}, open("told.json", "w"))
"""

DROPPED = {
    "name",
    "seed",
    "dtype",
    "unroll",
    "use_cudnn",
    "unit_forget_bias",
    "synchronized",
    "weights",
    "lora_rank",
    "lora_alpha",
}
DROPPED |= {"quantization_config", "gptq_unpacked_column_size", "renorm_clipping", "renorm_momentum"}
ENDINGS = ("_initializer", "_regularizer", "_constraint")
# Of the base: every loop takes it, and Bidirectional sets it.
INHERITED = {("LSTM", "zero_output_for_mask"), ("GRU", "zero_output_for_mask"), ("SimpleRNN", "zero_output_for_mask")}
INHERITED |= {(f"ConvLSTM{rank}D", "zero_output_for_mask") for rank in (1, 2, 3)} | {("RNN", "zero_output_for_mask")}


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("signatures")
    kinds = {kind: stock_layers.module(kind) for kind in sorted(stock_layers.kinds())}
    (folder / "kinds.json").write_text(json.dumps(kinds))
    plain_keras.run(SIGNATURES, folder, Path("kinds.json"))
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return told


def test_every_argument_is_one_of_kerass_and_has_its_default(keras: dict[str, Any]) -> None:
    for kind, told in keras["kinds"].items():
        own = told["arguments"]
        for name, (_, default) in stock_layers.arguments(kind).items():
            if (kind, name) in INHERITED:
                continue
            assert name in own, (kind, name)
            if default is ... or name == "data_format":
                assert own[name] == "required" or (kind, name) in NEEDED, (kind, name)
            elif name == "activation" and default == "linear":
                assert own[name] == ["default", None], kind
            else:
                assert own[name] == ["default", default], (kind, name)
        assert stock_layers.inner(kind) <= own.keys()


# What Keras would take from elsewhere: the channels from its settings, a vocabulary from a file.
NEEDED = {("CategoryEncoding", "num_tokens"), ("IntegerLookup", "vocabulary")}
NEEDED |= {(kind, "data_format") for kind in stock_layers.kinds() if "data_format" in stock_layers.arguments(kind)}


def test_no_argument_of_kerass_is_forgotten(keras: dict[str, Any]) -> None:
    for kind, told in keras["kinds"].items():
        listed = set(stock_layers.arguments(kind)) | stock_layers.inner(kind) | DROPPED
        left = {
            name for name in told["arguments"] if name not in listed and name != "self" and not name.endswith(ENDINGS)
        }
        assert not left, kind


def test_names_of_classes_calls_and_activations_are_kerass(keras: dict[str, Any]) -> None:
    called = {"self", "training", "kwargs", "operands"}
    for kind, told in keras["kinds"].items():
        assert told["layer"] is not kind.startswith("ops.")
        if told["layer"]:
            assert snake_case(kind) == told["snake"]
        called |= set(told["call"])
    assert called == stock_layers.CALL_ARGUMENTS | {"self", "training", "kwargs", "operands"}
    assert set(keras["activations"]) >= stock_layers.ACTIVATIONS


def faults(kind: Any, **config: Any) -> list[tuple[str, str]]:
    return [(where, message) for where, message, _ in stock_layers.faults(kind, config)]


def test_values_are_bounded() -> None:
    assert not faults("Dense", units=3, activation="relu")
    for units in (0, 2**24 + 1, 2**80, 3.0, True, "3", None, [3], float("nan"), -1):
        assert [where for where, _ in faults("Dense", units=units)] == ["/config/units"]
    for rate in (-0.1, 1.1, float("nan"), float("inf"), "0.5", True):
        assert [where for where, _ in faults("Dropout", rate=rate)] == ["/config/rate"]
    for name in ("os.system", "keras.config.set_floatx", "Relu", "", None.__class__, {"class_name": "function"}):
        assert [where for where, _ in faults("Dense", units=3, activation=name)] == ["/config/activation"]
    assert faults("IntegerLookup", vocabulary="/etc/passwd")[0][0] == "/config/vocabulary"
    assert faults("Reshape", target_shape=[1] * 17)[0][0] == "/config/target_shape"
    assert faults("ops.Einsum", subscripts="ij->__import__")[0][0] == "/config/subscripts"


def test_channels_stand_last_but_where_a_layer_only_puts_zeros_beside_them() -> None:
    assert not faults("ZeroPadding2D", data_format="channels_first")
    assert faults("Conv2D", filters=1, kernel_size=1, data_format="channels_first")[0][0] == "/config/data_format"
    assert faults("ZeroPadding1D", data_format="channels_first")[0][0] == "/config/data_format"


def test_layers_within_layers_are_judged_alike() -> None:
    assert not faults("Bidirectional", layer={"kind": "LSTM", "config": {"units": 3}})
    assert not faults(
        "RNN", cell={"kind": "StackedRNNCells", "config": {"cells": [{"kind": "GRUCell", "config": {"units": 2}}]}}
    )
    assert faults("Bidirectional", layer={"kind": "Dense", "config": {"units": 3}})[0][0] == "/config/layer/kind"
    inner = {"kind": "LSTM", "config": {"units": 2**40, "function": "x"}}
    assert [where for where, _ in faults("Bidirectional", layer=inner)] == [
        "/config/layer/config/units",
        "/config/layer/config/function",
    ]
    assert faults("TimeDistributed", layer="LSTM")[0][0] == "/config/layer"
    assert faults("TimeDistributed")[0] == ("/config/layer", "TimeDistributed needs this argument")
    assert faults("StackedRNNCells", cells=[])[0][0] == "/config/cells"


@pytest.mark.parametrize(
    "kind", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "StringLookup", "TextVectorization"]
)
def test_what_holds_code_or_strings_is_refused_with_a_way_out(kind: str) -> None:
    ((where, _, hint),) = stock_layers.faults(kind, {})
    assert where == "/kind"
    assert isinstance(hint, str)


@pytest.mark.parametrize(
    "kind", ["Model", "Layer", "ops.Map", "ops.WhileLoop", "__class__", "", 3, None, ["Dense"], "keras.layers.Dense"]
)
def test_no_other_name_is_a_layer(kind: Any) -> None:
    assert faults(kind)[0][0] == "/kind"


def spec_faults(**changes: Any) -> list[tuple[str, str, Any]]:
    with pytest.raises(Invalid) as caught:
        architectures.resolve({**keras_graph.EXAMPLE, **changes}, "/architecture")
    return [(fault.pointer, fault.message, fault.hint and str(fault.hint)) for fault in caught.value.faults]


def test_a_graph_from_a_job_is_judged_whole() -> None:
    layers = {**keras_graph.EXAMPLE["layers"], "l": {"kind": "Lambda"}, "m": {"kind": "Conv2d"}}
    calls = [
        *keras_graph.EXAMPLE["calls"],
        {"name": "conv", "layer": "conf", "args": [{"tensor": "imge"}, "os.system"], "kwargs": {"function": 1}},
        {"name": "late", "layer": "l", "args": [{"tensor": "later"}]},
        {"name": "later", "layer": "m", "args": [{"tensor": "pool", "output": 1}, {"slice": [0, "x", None]}]},
    ]
    assert [pointer for pointer, *_ in spec_faults(layers=layers, calls=calls, features="image")] == [
        "/architecture/calls/2/args/0/tensor",
        "/architecture/calls/2/args/1",
        "/architecture/calls/2/kwargs/function",
        "/architecture/calls/2/layer",
        "/architecture/calls/2/name",
        "/architecture/calls/3/args/0/tensor",
        "/architecture/calls/4/args/0/output",
        "/architecture/calls/4/args/1/slice",
        "/architecture/features",
        "/architecture/layers/l/kind",
        "/architecture/layers/m/kind",
    ]


def test_a_graph_is_bounded_in_depth_and_size() -> None:
    deep: Any = {"tensor": "image"}
    for _ in range(40):
        deep = [deep]
    first, second = keras_graph.EXAMPLE["calls"]
    (fault,) = spec_faults(calls=[{**first, "args": [deep]}, second])
    assert fault[1] == "nested deeper than 16 levels"
    (fault,) = spec_faults(calls=[{**first, "args": [[0] * 200_001]}, second])
    assert fault[0] == "/architecture/layers"
    (fault,) = spec_faults(given=[{"name": "image", "shape": [2**40]}])
    assert fault[0] == "/architecture/given/0/shape/0"


def test_several_tensors_of_one_call_are_told_apart() -> None:
    layers = {"split": {"kind": "ops.Split", "config": {"indices_or_sections": 2}}, "add": {"kind": "Add"}}
    given = [{"name": "x", "shape": [4]}]

    def calls(*outputs: Any) -> list[dict[str, Any]]:
        tensors = [
            {"tensor": "split"} if output is None else {"tensor": "split", "output": output} for output in outputs
        ]
        return [
            {"name": "split", "layer": "split", "args": [{"tensor": "x"}]},
            {"name": "add", "layer": "add", "args": [tensors]},
        ]

    architectures.resolve(
        {"arch": "keras-graph", "given": given, "layers": layers, "calls": calls(0, 1), "features": "add"}
    )
    found = spec_faults(given=given, layers=layers, calls=calls(0, None), features="add")
    assert [pointer for pointer, *_ in found] == ["/architecture/calls/1/args/0/1/output"]
    assert (
        spec_faults(given=given, layers=layers, calls=calls(0, 1), features="split")[0][0] == "/architecture/features"
    )
