"""Heads that are cut off a user's network."""

from __future__ import annotations

from typing import Any

import pytest

from app.model_files.heads import cut
from app.spec.faults import Invalid
from app.spec.imports import ImportOptions
from app.spec.models import HeadSpec
from tests.app.model_files.graphs import chain, forked

HIDDEN = ("hidden", "Dense", {"units": 16, "activation": "relu"})


def dense(units: int, activation: str | None = None, **config: Any) -> tuple[str, str, dict[str, Any]]:
    return ("out", "Dense", {"units": units, **config, **({"activation": activation} if activation else {})})


@pytest.mark.parametrize(
    ("end", "classes", "type", "units"),
    [
        ([dense(3, "softmax")], ["a", "b", "c"], "multiclass", 3),
        ([dense(3), ("end", "Activation", {"activation": "softmax"})], ["a", "b", "c"], "multiclass", 3),
        ([dense(3), ("end", "Softmax", {})], ["a", "b", "c"], "multiclass", 3),
        ([dense(3)], ["a", "b", "c"], "multiclass", 3),
        ([dense(2, "softmax")], ["no", "yes"], "binary", 1),
        ([dense(1, "sigmoid")], ["no", "yes"], "binary", 1),
        ([dense(3, "sigmoid")], ["a", "b", "c"], "multilabel", 3),
        ([dense(2)], None, "regression", 2),
    ],
)
def test_an_output_becomes_the_head_of_a_task(end: Any, classes: list[str] | None, type: str, units: int) -> None:
    graph = chain(HIDDEN, *end)
    trunk, (head,), _ = cut(graph, [(graph.features, {"tensor": graph.features})], ImportOptions(classes=classes))
    assert (head.manifest.type, head.manifest.units, head.manifest.classes) == (type, units, classes)
    assert head.layers == {"logits": "out"}
    assert head.of_two == (end[0][2]["units"] == 2 and type == "binary")
    assert (trunk.features, list(trunk.layers), [call.name for call in trunk.calls]) == (
        "hidden",
        ["hidden"],
        ["hidden"],
    )


@pytest.mark.parametrize(
    ("end", "classes", "pointer", "word"),
    [
        ([dense(3, "softmax")], None, "/classes", "name its 3 classes"),
        ([dense(1, "sigmoid")], None, "/classes", "name its 2 classes"),
        ([dense(3, "softmax")], ["a", "b"], "/classes", "2 classes were named, the output out has 3"),
        ([dense(3, "softmax")], ["a", "b", "a"], "/classes", "'a' stands twice"),
        ([dense(3, "relu")], ["a", "b", "c"], "/classes", "ends in relu"),
        ([("out", "LayerNormalization", {})], ["a", "b"], "/classes", "does not end in a dense layer"),
    ],
)
def test_what_is_missing_is_asked_for(end: Any, classes: list[str] | None, pointer: str, word: str) -> None:
    graph = chain(HIDDEN, *end)
    with pytest.raises(Invalid) as refused:
        cut(graph, [(graph.features, {"tensor": graph.features})], ImportOptions(classes=classes))
    (fault,) = refused.value.faults
    assert fault.pointer == pointer
    assert word in fault.message
    assert fault.hint


def test_a_network_without_heads_is_kept_as_a_trunk() -> None:
    for graph, options, features in (
        (chain(HIDDEN, ("norm", "LayerNormalization", {})), ImportOptions(), "norm"),
        (chain(HIDDEN, dense(3, "softmax")), ImportOptions(classes="none"), "hidden"),
    ):
        trunk, heads, notes = cut(graph, [(graph.features, {"tensor": graph.features})], options)
        assert (trunk.features, heads) == (features, [])
        assert "`predict` answers its features" in notes[-1]


def test_a_convolution_of_one_place_is_a_head() -> None:
    """As MobileNet's own: pooled with its sides kept, a 1×1 convolution, and made flat."""
    graph = chain(
        ("pool", "GlobalAveragePooling2D", {"keepdims": True}),
        ("preds", "Conv2D", {"filters": 3, "kernel_size": [1, 1]}),
        ("flat", "Reshape", {"target_shape": [3]}),
        ("end", "Activation", {"activation": "softmax"}),
        shape=(8, 8, 3),
    )
    trunk, (head,), _ = cut(graph, [("end", {"tensor": "end"})], ImportOptions(classes=["a", "b", "c"]))
    assert head.spatial
    assert (head.layers, trunk.features) == ({"logits": "preds"}, "pool")


def test_heads_of_several_outputs_stand_on_their_common_trunk() -> None:
    """One head has a hidden layer and dropout of its own, the other has none."""
    graph = forked(
        chain(HIDDEN),
        (
            ("own", "Dense", {"units": 4, "activation": "tanh"}),
            ("drop", "Dropout", {"rate": 0.2}),
            ("age", "Dense", {"units": 1}),
        ),
        (("kind", "Dense", {"units": 3, "activation": "softmax"}),),
    )
    outputs = [("age", {"tensor": "age"}), ("kind", {"tensor": "kind"})]
    trunk, heads, _ = cut(graph, outputs, ImportOptions(classes={"kind": ["a", "b", "c"]}))
    assert trunk.features == "hidden"
    assert [(head.task, head.manifest.type) for head in heads] == [("age", "regression"), ("kind", "multiclass")]
    assert heads[0].spec == HeadSpec(units=4, activation="tanh", dropout=0.2)
    assert heads[0].layers == {"hidden": "own", "logits": "age"}
    assert heads[1].spec == HeadSpec()


def test_outputs_on_different_layers_are_kept_one_at_a_time() -> None:
    graph = forked(
        chain(HIDDEN),
        (
            ("a1", "Dense", {"units": 4, "activation": "relu"}),
            ("a2", "Dense", {"units": 4, "activation": "relu"}),
            ("a", "Dense", {"units": 1}),
        ),
        (("b", "Dense", {"units": 1}),),
    )
    outputs = [("a", {"tensor": "a"}), ("b", {"tensor": "b"})]
    with pytest.raises(Invalid) as refused:
        cut(graph, outputs, ImportOptions())
    assert "stand on different layers" in refused.value.faults[0].message
    trunk, (head,), notes = cut(graph, outputs, ImportOptions(output="a"))
    assert (trunk.features, head.task, head.layers) == ("a2", "a", {"logits": "a"})
    assert any("b was left out" in note for note in notes)


def test_a_layer_that_is_read_elsewhere_is_no_head() -> None:
    """The last dense layer's output is an output itself and feeds another one."""
    graph = chain(HIDDEN, ("mid", "Dense", {"units": 3}), ("end", "Dense", {"units": 2}))
    outputs = [("mid", {"tensor": "mid"}), ("end", {"tensor": "end"})]
    with pytest.raises(Invalid):
        cut(graph, outputs, ImportOptions())
