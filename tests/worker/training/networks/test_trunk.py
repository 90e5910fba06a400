"""What is traced of a network, against what Keras builds and against definitions written out by hand."""

from __future__ import annotations

import hashlib
import json
import resource
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from app.spec import architectures
from app.spec.architectures import Architecture
from app.spec.registry import modules
from app.spec.trace import INPUT, Trace, TracedLayer
from tests import plain_keras
from tests.worker.training.small import DIGIT, MIXED, PICTURE, SHAPES, example, network
from worker.training import sharing
from worker.training.networks import build, trunk
from worker.training.networks.opened import Trunk, lay_open

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def examples() -> list[tuple[Architecture, tuple[int, ...]]]:
    found = []
    for name in modules("architectures"):
        chosen = example(name)
        found.append((chosen, chosen.trunk_shape(SHAPES[chosen.inputs])))
    return found


def open_graph(build_: Any, shape: tuple[int, ...] = (8, 8, 2)) -> tuple[Any, Trunk]:
    """A functional model, and the same laid open."""
    inputs = keras.Input(shape, name="input")
    model = keras.Model(inputs, build_(inputs))
    return model, lay_open(model)


def rerun(opened: Trunk, x: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """A copy made from the parts, on `x`; and its layers."""
    graph = sharing.graph(modules("sharing")["hard_sharing"].Spec(), opened.trace, ["t"])
    layers, steps = {}, {}
    for node in graph.nodes:
        if node.origin is not None:
            layers[node.name], steps[node.name] = opened.step(node, layers)
    inputs = keras.Input(x.shape[1:])
    found = {INPUT: inputs}
    for node in graph.nodes:
        if node.origin is not None:
            found[node.name] = steps[node.name]([found[name] for name in node.after])
    return keras.Model(inputs, found[opened.trace.features]), layers


# --- what is traced is what Keras builds


@pytest.mark.parametrize(("architecture", "shape"), examples(), ids=lambda one: getattr(one, "arch", ""))
def test_a_trace_says_of_every_layer_what_the_live_one_has(architecture: Architecture, shape: tuple[int, ...]) -> None:
    scale = PICTURE.scale if architecture.inputs == "image" else 1.0
    kind = PICTURE.model_copy(update={"kind": architecture.inputs, "scale": scale, "shape": list(shape)})
    whole = network(
        [DIGIT], 0, architectures.as_data(architecture), MIXED if architecture.input_kind == "multimodal" else kind
    )
    keras_layers, trace = build.keras_layers(whole), whole.trace
    assert len(set(trace.names)) == len(trace.names)
    for layer in trace.layers:
        made = keras_layers.layers[layer.name]
        assert type(made).__name__ == layer.kind
        assert tuple(made.output.shape[1:]) == tuple(layer.shape)
        assert made.count_params() == layer.parameters
    assert keras_layers.forward.count_params() == whole.parameters
    assert Trace.model_validate_json(trace.model_dump_json()) == trace


@pytest.mark.slow
def test_a_trace_is_the_same_in_every_process_whatever_keras_has_numbered_before() -> None:
    code = """
from app.spec import architectures
from worker.training.networks import trunk
print(trunk.trace(architectures.resolve("applications:Xception"), (71, 71, 3)).digest)
"""
    keras.layers.Conv2D(1, 1)
    told = plain_keras.run(code, plain_keras.ROOT)
    here = trunk.trace(architectures.resolve("applications:Xception"), (71, 71, 3))
    assert told.strip() == here.digest
    assert {"backbone-conv2d", "backbone-conv2d_3", "backbone-add_11"} <= set(here.names)


def test_the_largest_network_is_traced_without_making_a_number_of_it() -> None:
    large = architectures.resolve({"arch": "cnn", "filters": [1024, 1024], "dense": 4096})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trace = trunk.trace(large, (2048, 2048, 3))
    assert trace.parameters > 10**12
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert not global_state.get_global_attribute("uninitialized_variables")
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    assert np.asarray(layer.kernel).shape == (3, 2)  # and numbers are made again


# --- graphs of all kinds


def test_nested_models_branches_and_ops_are_laid_open_and_compute_the_same() -> None:
    def build_(x: Any) -> Any:
        inner_in = keras.Input((8, 8, 2))
        skip = keras.layers.Conv2D(4, 1, name="skip")(inner_in)
        deep = keras.Sequential([keras.layers.Conv2D(4, 3, padding="same", name="a"), keras.layers.ReLU()], name="deep")
        inner = keras.Model(inner_in, keras.layers.Add(name="sum")([deep(inner_in), skip]), name="inner")
        y = inner(x)
        y = y * 2.0 + keras.layers.Conv2D(4, 1, name="side")(x)
        return keras.layers.Flatten()(y)

    model, opened = open_graph(build_)
    trace = opened.trace
    assert {"inner-skip", "inner-deep-a", "inner-deep-re_lu", "inner-sum", "side", "multiply", "add", "flatten"} == set(
        trace.names
    )
    assert trace.meant("inner") == [name for name in trace.names if name.startswith("inner-")]
    assert trace.by_name["inner-sum"].after == ["inner-deep-re_lu", "inner-skip"]
    assert trace.by_name["inner-skip"].after == [INPUT]
    assert trace.parameters == model.count_params()
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 2)).astype(np.float32)
    copy, layers = rerun(opened, x)
    named = {"inner-skip": "skip", "inner-deep-a": "a", "side": "side"}
    kept = {
        "skip": model.get_layer("inner").get_layer("skip"),
        "a": model.get_layer("inner").get_layer("deep").get_layer("a"),
        "side": model.get_layer("side"),
    }
    for name, own in named.items():
        layers[name].set_weights(kept[own].get_weights())
    assert np.array_equal(np.asarray(copy(x)), np.asarray(model(x)))


def test_each_call_of_a_layer_is_traced_and_the_first_one_has_its_numbers() -> None:
    def build_(x: Any) -> Any:
        shared, norm = keras.layers.Conv2D(2, 1, name="again"), keras.layers.BatchNormalization(name="norm")
        inner = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(2, 1, name="c"), norm], name="inner")
        x = norm(shared(shared(x)))
        return keras.layers.Flatten()(keras.layers.Add(name="sum")([inner(x), inner(shared(x))]))

    model, opened = open_graph(build_)
    trace = opened.trace
    further = {layer.name: layer.same_as for layer in trace.layers if layer.same_as}
    assert further == {
        "again-call2": "again", "again-call3": "again", "inner-norm": "norm", "inner-call2-c": "inner-c",
        "inner-call2-norm": "norm",
    }  # fmt: skip
    assert trace.parameters == model.count_params() == 6 + 8 + 6
    assert all(
        (layer.parameters, layer.kernel, layer.adaptable) == (0, False, False)
        for layer in trace.layers
        if layer.same_as
    )
    assert trace.by_name["sum"].after == ["inner-norm", "inner-call2-norm"]
    assert trace.in_each_call(["again-call2"]) == ["again", "again-call2", "again-call3"]
    assert trace.meant("inner-call2") == ["inner-call2-c", "inner-call2-norm"]
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 2)).astype(np.float32)
    copy, layers = rerun(opened, x)
    for name, own in {"again": model.get_layer("again"), "inner-c": model.get_layer("inner").get_layer("c")}.items():
        layers[name].set_weights(own.get_weights())
    assert layers["again-call3"] is layers["again"]
    assert np.array_equal(np.asarray(copy(x)), np.asarray(model(x)))


def test_towers_of_a_trunk_call_their_own_copies_again() -> None:
    def build_(x: Any) -> Any:
        shared = keras.layers.Dense(5, name="again")
        return shared(keras.layers.Dense(5, name="between")(shared(x)))

    _, opened = open_graph(build_, (5,))
    graph = sharing.graph(modules("sharing")["cross_stitch"].Spec(), opened.trace, ["a", "b"])
    again = {node.name: node.same_as for node in graph.nodes if node.origin == "again-call2"}
    assert again == {"a-again-call2": "a-again", "b-again-call2": "b-again"}
    assert graph.parameters == 2 * opened.trace.parameters + sum(
        n.parameters for n in graph.nodes if n.kind == "stitch"
    )


def test_the_digest_of_a_trace_without_further_calls_is_what_it_was() -> None:
    trace = trunk.trace(architectures.resolve({"arch": "mlp", "units": [6, 4]}), (5,))
    old = trace.model_dump()
    for layer in old["layers"]:
        assert layer.pop("same_as") is None
    assert trace.digest == hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:16]


def test_what_keras_cannot_build_is_refused_in_words_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_(spec: Any, x: Any) -> Any:
        return keras.layers.MaxPooling2D(50, name="large")(x)

    monkeypatch.setattr(trunk, "builder", lambda _: build_)
    trunk._trunk.cache_clear()
    with pytest.raises(ValueError, match=r"^cnn cannot be built on inputs of shape \[30, 30, 1\]$"):
        trunk.trace(architectures.resolve("cnn"), (30, 30, 1))
    monkeypatch.setattr(trunk, "builder", lambda _: lambda spec, x: [x, x])
    with pytest.raises(ValueError, match=r"cnn gives 2 tensors"):
        trunk.trace(architectures.resolve("cnn"), (30, 30, 1))
    trunk._trunk.cache_clear()


# --- groups, by definition


def cuts(trace: Trace) -> list[str]:
    """The layers without which no signal reaches the features, found by taking each away in turn."""
    found = []
    for missing in trace.names:
        reached = {INPUT}
        for layer in trace.layers:
            if layer.name != missing and reached.intersection(layer.after):
                reached.add(layer.name)
        if trace.features not in reached:
            found.append(missing)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "resnet-14",
        "wrn-16-2",
        {"arch": "vit-tiny", "depth": 2},
        "applications:MobileNetV2",
        "applications:ResNet50V2",
    ],
    ids=str,
)
def test_runs_end_where_the_whole_signal_passes(name: Any) -> None:
    trace = trunk.trace(architectures.resolve(name), (32, 32, 3))
    assert [run[-1].name for run in trace.runs] == cuts(trace)
    assert [layer.name for run in trace.runs for layer in run] == trace.names


def test_groups_of_a_residual_network_are_its_blocks() -> None:
    trace = trunk.trace(architectures.resolve("resnet-14"), (32, 32, 3))
    assert len(trace.groups) == 1 + 6
    for group, block in zip(trace.groups[1:], [(s, b) for s in (1, 2, 3) for b in (1, 2)], strict=True):
        assert {name.rpartition("-")[0] for name in group if name != "global-pool"} == {
            f"stage{block[0]}-block{block[1]}"
        }
    assert trace.points == [*(f"{group[-1]}" for group in trace.groups[:-1]), "global-pool"]


def test_a_skip_over_everything_makes_one_group() -> None:
    more: dict[str, Any] = {"parameters": 2, "kernel": True, "adaptable": True, "shape": [3]}
    layers = [
        TracedLayer(name="a", kind="Dense", after=[INPUT], drawn_as="a", **more),
        TracedLayer(name="b", kind="Dense", after=["a"], drawn_as="b", **more),
        TracedLayer(name="c", kind="Add", after=["b", INPUT], drawn_as="c", **{**more, "kernel": False}),
    ]
    trace = Trace(input=[3], layers=layers)
    assert trace.groups == [["a", "b", "c"]]
    assert trace.points == ["c"]


def test_a_mask_is_no_skip_for_groups_and_still_one_for_cuts() -> None:
    """Attention thrice, each on the one before and on the mask, which is made of the ids beside the embedding."""
    kernel: dict[str, Any] = {"parameters": 2, "kernel": True, "adaptable": False, "shape": [3]}
    plain = {**kernel, "parameters": 0, "kernel": False}
    attention = [
        TracedLayer(name=f"attention{n}", kind="MultiHeadAttention", after=[before, "mask"], drawn_as=f"{n}", **kernel)
        for n, before in enumerate(["embedding", "attention0", "attention1"])
    ]
    layers = [
        TracedLayer(name="ids", kind="Cast", after=[INPUT], drawn_as="ids", **plain),
        TracedLayer(name="embedding", kind="Embedding", after=["ids"], drawn_as="embedding", **kernel),
        TracedLayer(name="mask", kind="NotEqual", after=["ids"], drawn_as="mask", **plain),
        *attention,
        TracedLayer(name="mean", kind="Multiply", after=["attention2", "mask"], drawn_as="mean", **plain),
    ]
    trace = Trace(input=[3], layers=layers)
    assert trace.groups == [["ids", "embedding"], ["mask", "attention0"], ["attention1"], ["attention2", "mean"]]
    assert [run[-1].name for run in trace.runs] == ["ids", "mean"]


def test_cross_stitch_cuts_a_residual_trunk_between_its_blocks() -> None:
    trace = trunk.trace(architectures.resolve("resnet-8"), (8, 8, 1))
    graph = sharing.graph(modules("sharing")["cross_stitch"].Spec(), trace, ["a", "b"])
    stitched = [node.after[0] for node in graph.nodes if node.kind == "stitch"]
    assert len(set(stitched)) == 4
    nodes = {node.name: node for node in graph.nodes}
    add = nodes["a-stage2-block1-add"]
    assert add.after == ("a-stage2-block1-norm2", "a-stage2-block1-widened")
    assert nodes["a-stage2-block1-subsampled"].after == nodes["a-stage2-block1-conv1"].after == ("stitch2-a-maps",)
