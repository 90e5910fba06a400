"""Weights alone for a named architecture: the same answers as the network that they were saved from, or every array by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from app.spec.faults import MOST, Invalid
from app.spec.models import Manifest
from tests.app.pretrained.published import safetensors
from tests.worker.training.kept.sent_weights import described, send
from worker.training.kept.export import read
from worker.training.networks.architectures import builder

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

RNG = np.random.default_rng(0)
ABC = ["a", "b", "c"]
SMALL: dict[str, Any] = {"architecture": {"arch": "mlp", "units": [6, 5]}, "shape": [4], "classes": ABC}


def filled(model: Any) -> Any:
    """The model with numbers of its own in each variable."""
    for variable in model.weights:
        wide = np.prod(variable.shape[:-1]) ** -0.5  # so that no softmax saturates
        least = 0.5 if "variance" in variable.name else -wide
        variable.assign(RNG.uniform(least, least + 2 * wide, variable.shape))
    return model


def network(*heads: Any, **options: Any) -> Any:
    """The architecture with heads of a user's on it, built in plain Keras under the user's names."""
    named = described(**options)
    rows = keras.Input(tuple(named.seen))
    features = builder(named.architecture)(named.architecture, rows)
    return filled(keras.Model(rows, [head(features) for head in heads] or features))


def weights(model: Any, folder: Path) -> bytes:
    path = folder / "mine.weights.h5"
    model.save_weights(path)
    return path.read_bytes()


def answers(folder: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    told = keras.saving.load_model(folder / "model.keras", compile=False)(rows, training=False)
    return {name: np.array(answer) for name, answer in told.items()}


SEEN = {
    "0..255": lambda x: x,
    "0..1": lambda x: x / 255,
    "-1..1": lambda x: x / 127.5 - 1,
    "imagenet": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
}


@pytest.mark.parametrize(
    ("arch", "scale"),
    [
        ("resnet-8", "-1..1"),
        pytest.param("vit-tiny", "imagenet", marks=pytest.mark.slow),
        *(("cnn-small", scale) for scale in SEEN),
    ],
)
def test_pictures_are_answered_as_by_the_network_that_was_saved(arch: str, scale: str, tmp_path: Path) -> None:
    options = {"architecture": arch, "shape": [24, 24, 3], "classes": ABC, "scale": scale}
    model = network(layers.Dense(3, activation="softmax", name="predictions"), **options)
    manifest = send(weights(model, tmp_path), tmp_path, **options)
    rows = RNG.integers(0, 256, (5, 24, 24, 3)).astype(np.float32)
    expected = np.array(model(SEEN[scale](rows)))
    assert np.abs(answers(tmp_path, rows)["class"] - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).max() > 1e-4
    assert (manifest.architecture["arch"] == "keras-graph") is (scale != "0..1")
    assert manifest.origin is not None
    report = manifest.origin.weights
    assert report is not None
    assert len(report.matched) == len(model.weights)
    assert {array.by for array in report.matched if not array.variable.startswith("class_logits")} == {"name"}
    assert read(tmp_path / "model.keras", manifest).parameters == model.count_params()


@pytest.mark.parametrize(
    ("arch", "shape", "more", "scale"),
    [
        ("mlp", [6], {}, 1), ("table-resnet", [6], {}, 1), ("text-cnn", [48], {}, 1), ("text-encoder", [48], {}, 1),
        ("audio-cnn", [4000, 1], {"rate": 8000}, 32768),
    ],
)  # fmt: skip
def test_other_rows_too(arch: str, shape: list[int], more: dict[str, Any], scale: float, tmp_path: Path) -> None:
    options = {"architecture": arch, "shape": shape, "classes": ABC, **more}
    model = network(layers.Dense(3, activation="softmax"), **options)
    send(weights(model, tmp_path), tmp_path, **options)
    rows = RNG.integers(1, 200, (5, *shape)).astype(np.float32)
    assert np.abs(answers(tmp_path, rows)["class"] - np.array(model(rows / scale))).max() < 1e-5


def test_one_array_is_missing_one_too_many_and_one_of_another_shape(tmp_path: Path) -> None:
    rows = keras.Input((4,))
    hidden = layers.Dense(6, "relu", name="dense1", use_bias=False)(rows)
    more = layers.Dense(7, name="beside")(rows)
    out = layers.Dense(3, name="class_logits")(layers.Dense(7, name="dense2")(hidden))
    file = weights(filled(keras.Model(rows, [out, more])), tmp_path)
    with pytest.raises(Invalid) as refused:
        send(file, tmp_path, **SMALL)
    told = {fault.message: fault.code for fault in refused.value.faults}
    assert told == {
        "of another shape: dense2/0 is 6×7, the network's dense2/kernel 6×5": "wrong_shape",
        "of another shape: dense2/1 is 7, the network's dense2/bias 5": "wrong_shape",
        "of another shape: class_logits/0 is 7×3, the network's class_logits/kernel 5×3": "wrong_shape",
        "the file has nothing for dense1/kernel (4×6)": "missing",
        "the file has nothing for dense1/bias (6)": "missing",
        "the network has no dense1/0 (4×6)": "unknown_member",
        "the network has no beside/0 (4×7)": "unknown_member",
        "the network has no beside/1 (7)": "unknown_member",
    }
    assert {fault.pointer for fault in refused.value.faults} == {"/weights"}
    assert not (tmp_path / "model.keras").exists()


def test_partial_weights_are_completed_by_the_seed_and_said(tmp_path: Path) -> None:
    rows = keras.Input((4,))
    model = filled(keras.Model(rows, layers.Dense(9, name="other")(layers.Dense(6, "relu", name="dense1")(rows))))
    file = weights(model, tmp_path)

    def sent(**more: Any) -> tuple[Manifest, dict[str, list[np.ndarray]]]:
        manifest = send(file, tmp_path, **SMALL, **more)
        return manifest, read(tmp_path / "model.keras", manifest).weights

    manifest, numbers = sent(partial=True)
    assert manifest.origin is not None
    report = manifest.origin.weights
    assert report is not None
    assert [(a.array, a.variable, a.by) for a in report.matched] == [
        ("dense1/0", "dense1/kernel", "name"), ("dense1/1", "dense1/bias", "name"),
    ]  # fmt: skip
    assert [array.name for array in report.unmatched_in_network] == [
        "dense2/kernel", "dense2/bias", "class_logits/kernel", "class_logits/bias",
    ]  # fmt: skip
    assert [(array.name, array.shape) for array in report.unmatched_in_file] == [("other/0", [6, 9]), ("other/1", [9])]
    assert any("drawn with seed 0" in note and "dense2/kernel (6×5)" in note for note in manifest.origin.notes)
    assert np.array_equal(numbers["dense1"][0], model.weights[0])
    again, other = sent(partial=True)[1], sent(partial=True, seed=1)[1]
    assert np.array_equal(numbers["dense2"][0], again["dense2"][0])
    assert not np.array_equal(numbers["dense2"][0], other["dense2"][0])
    with pytest.raises(Invalid, match="no array of the file fits"):
        send(safetensors({"elsewhere/kernel": np.zeros((2, 2), "f4")}), tmp_path, **SMALL, partial=True)


def test_a_trunk_is_taken_without_its_head_and_out_of_a_whole_network(tmp_path: Path) -> None:
    options = {**SMALL, "classes": "none"}
    for heads in ([], [layers.Dense(3, activation="softmax", name="dense")]):
        model = network(*heads, **options)
        manifest = send(weights(model, tmp_path), tmp_path, **options)
        assert (manifest.tasks, manifest.layers) == ({}, ["dense1", "dense2"])
        rows = RNG.normal(size=(5, 4)).astype(np.float32)
        features = keras.Model(model.input, model.get_layer("dense2").output)(rows)
        assert manifest.origin is not None
        assert any("left out of the file: dense/0 (5×3)" in note for note in manifest.origin.notes) is bool(heads)
        assert answers(tmp_path, rows)["features"] == pytest.approx(np.array(features), abs=1e-6)


GRAPH = {
    "arch": "keras-graph",
    "given": [{"name": "x", "shape": [4]}],
    "layers": {name: {"kind": "Dense", "config": {"units": 4}} for name in ("dense", "dense_1", "dense_2")},
    "calls": [
        {"name": name, "layer": name, "args": [{"tensor": before}]}
        for before, name in (("x", "dense"), ("dense", "dense_1"), ("dense_1", "dense_2"))
    ],
    "features": "dense_2",
}


def test_names_that_keras_counts_are_no_names(tmp_path: Path) -> None:
    """A process that made another dense layer before counts from 1 or more: the first one has the second one's name here."""
    rows = keras.Input((4,))
    chain = [layers.Dense(4, name=f"dense_{number}") for number in (1, 2, 3)]
    model = filled(keras.Model(rows, layers.Dense(3, name="class_logits")(chain[2](chain[1](chain[0](rows))))))
    options = {"architecture": GRAPH, "classes": ABC}
    by_name = {"/".join(variable.path.split("/")[-2:]): np.array(variable) for variable in model.weights}
    for file in (weights(model, tmp_path), safetensors(by_name)):
        manifest = send(file, tmp_path, **options)
        numbers = read(tmp_path / "model.keras", manifest).weights
        for name, layer in zip(GRAPH["layers"], chain, strict=True):
            assert np.array_equal(numbers[name][0], np.array(layer.kernel))
    chain.pop()
    fewer = keras.Model(rows, layers.Dense(3, name="class_logits")(chain[1](chain[0](rows))))
    with pytest.raises(Invalid) as refused:
        send(weights(fewer, tmp_path), tmp_path, **options)
    assert len(refused.value.faults) == 6 + 4  # nobody can tell which one is missing


def test_layers_within_layers_are_found_where_keras_saves_them(tmp_path: Path) -> None:
    """Wrappers, loops and attention keep their numbers in groups of their own."""
    kinds: dict[str, Any] = {
        "both": {"kind": "Bidirectional", "config": {"layer": {"kind": "LSTM", "config": {"units": 3, "return_sequences": True}}}},
        "stacked": {
            "kind": "RNN",
            "config": {
                "cell": {"kind": "StackedRNNCells", "config": {"cells": [
                    {"kind": "GRUCell", "config": {"units": 4}}, {"kind": "GRUCell", "config": {"units": 5}},
                ]}},
                "return_sequences": True,
            },
        },
        "each": {"kind": "TimeDistributed", "config": {"layer": {"kind": "Dense", "config": {"units": 4}}}},
        "attention": {"kind": "MultiHeadAttention", "config": {"num_heads": 2, "key_dim": 2}},
        "normed": {"kind": "SpectralNormalization", "config": {"layer": {"kind": "Dense", "config": {"units": 4}}}},
        "mean": {"kind": "GlobalAveragePooling1D"},
    }  # fmt: skip
    names = list(kinds)
    calls = [
        {"name": name, "layer": name, "args": [{"tensor": before}] * (2 if name == "attention" else 1)}
        for before, name in zip(["x", *names], names, strict=False)
    ]
    graph = {"arch": "keras-graph", "given": [{"name": "x", "shape": [6, 4]}], "layers": kinds, "calls": calls}
    cells = layers.StackedRNNCells([layers.GRUCell(4), layers.GRUCell(5)])
    x = rows = keras.Input((6, 4))
    for layer in (
        layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both"), layers.RNN(cells, return_sequences=True, name="stacked"),
        layers.TimeDistributed(layers.Dense(4), name="each"),
    ):  # fmt: skip
        x = layer(x)
    x = layers.SpectralNormalization(layers.Dense(4), name="normed")(
        layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    )
    model = filled(keras.Model(rows, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x))))
    options = {"architecture": {**graph, "features": "mean"}, "classes": ABC}
    some = RNG.normal(size=(5, 6, 4, 1)).astype(np.float32)
    ours = {"stacked_rnn_cells/gru_cell_1": "cell/cells1", "stacked_rnn_cells/gru_cell": "cell/cells0"}
    by_name = dict[str, np.ndarray]()
    for variable in model.weights:
        path = variable.path
        for theirs, own in ours.items():  # two cells of one layer go by the names that the report has
            path = path.replace(theirs, own)
        by_name[path] = np.array(variable)
    for file in (weights(model, tmp_path), safetensors(by_name)):
        send(file, tmp_path, **options)
        assert np.abs(answers(tmp_path, some)["class"] - np.array(model(some[..., 0]))).max() < 1e-5


@pytest.mark.slow
def test_a_network_of_keras_applications_comes_by_its_own_names(tmp_path: Path) -> None:
    model = filled(
        keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg")
    )
    options = {
        "architecture": {"arch": "applications", "name": "MobileNetV2", "alpha": 0.35, "size": [32, 32]},
        "classes": "none",
    }
    manifest = send(weights(model, tmp_path), tmp_path, **options)
    rows = RNG.integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    assert np.abs(answers(tmp_path, rows)["features"] - np.array(model(rows / 127.5 - 1))).max() < 1e-4
    assert manifest.origin is not None
    assert manifest.origin.weights is not None
    assert {array.by for array in manifest.origin.weights.matched} == {"name"}


def test_what_pytorch_would_transpose_is_not_and_is_said(tmp_path: Path) -> None:
    options = {"architecture": "resnet-8", "shape": [24, 24, 3], "classes": ABC, "scale": "0..1"}
    model = network(layers.Dense(3, name="class_logits"), **options)
    ours = {variable.path: np.array(variable) for variable in model.weights}
    torch = {
        name.replace("kernel", "weight").replace("gamma", "weight").replace("beta", "bias").replace("moving_mean", "running_mean")
        .replace("moving_variance", "running_var").replace("/", "."): array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        for name, array in ours.items()
    }  # fmt: skip
    with pytest.raises(Invalid) as refused:
        send(safetensors(torch), tmp_path, **options)
    assert {fault.code for fault in refused.value.faults} == {"wrong_shape"}
    hints = {fault.message.split("'s ")[1].split()[0]: str(fault.hint) for fault in refused.value.faults}
    kernels = {name for name, array in ours.items() if array.ndim > 1}
    assert hints.keys() == kernels
    assert "array.transpose(2,3,1,0) as conv1/kernel" in hints["conv1/kernel"]
    assert "array.transpose(1,0)" in hints["class_logits/kernel"]
    turned = {name: torch.get(name, array) for name, array in ours.items()}
    send(safetensors(turned), tmp_path, **options)
    square = np.zeros((4, 4), "f4")
    square_sent = {"dense1.weight": square, "dense1.bias": square[0], "class_logits.bias": square[0, :3]}
    narrow = {"architecture": {"arch": "mlp", "units": [4]}, "shape": [4], "classes": ABC}
    report = send(safetensors(square_sent), tmp_path, **narrow, partial=True).origin.weights  # type: ignore[union-attr]
    assert report is not None
    assert [array.variable for array in report.of_another_shape] == ["dense1/kernel"]


def test_many_arrays_are_all_named_in_as_many_faults_as_an_answer_has(tmp_path: Path) -> None:
    options = {"architecture": "resnet-26", "shape": [24, 24, 3], "classes": ABC, "scale": "0..1"}
    others = {f"layer{number}.weight": np.zeros(number, "f4") for number in range(1, 200)}
    with pytest.raises(Invalid) as refused:
        send(safetensors(others), tmp_path, **options)
    told = " ".join(fault.message for fault in refused.value.faults)
    assert len(refused.value.faults) <= MOST
    assert all(f" layer{number}.weight ({number})" in told for number in range(1, 200))
    model = network(**{**options, "classes": "none"})
    assert all(f" {variable.path} (" in told for variable in model.weights)


def test_heads_are_what_is_said(tmp_path: Path) -> None:
    options = {key: SMALL[key] for key in ("architecture", "shape")}
    heads = {
        "sort": {"classes": ["no", "yes"], "units": 4, "activation": "tanh"},
        "marks": {"type": "multilabel", "classes": ABC},
        "size": {"outputs": 2},
    }
    hidden, sort = (
        layers.Dense(4, "tanh", name="sort_hidden"),
        layers.Dense(2, activation="softmax", name="sort_logits"),
    )
    marks, size = layers.Dense(3, activation="sigmoid", name="marks_logits"), layers.Dense(2, name="size_logits")
    model = network(lambda x: sort(hidden(x)), marks, size, **options, heads=heads)
    manifest = send(weights(model, tmp_path), tmp_path, **options, heads=heads)
    assert {name: (task.type, task.units) for name, task in manifest.tasks.items()} == {
        "sort": ("binary", 1), "marks": ("multilabel", 3), "size": ("regression", 2),
    }  # fmt: skip
    rows = RNG.normal(size=(5, 4)).astype(np.float32)
    told, expected = answers(tmp_path, rows), [np.array(out) for out in model(rows)]
    assert np.abs(told["sort"] - expected[0][:, 1:]).max() < 1e-6  # two outputs are kept as one
    assert np.abs(told["marks"] - expected[1]).max() < 1e-6
    assert np.abs(told["size"] - expected[2]).max() < 1e-6
