"""Networks with fewer channels, against the whole ones with the channels that fall set to nothing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from app.spec import architectures
from worker.training.networks import channels, trunk
from worker.training.networks.opened import Trunk, lay_open

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

SHAPES: dict[str, tuple[int, ...]] = {
    "cnn": (28, 28, 1),
    "mlp": (5,),
    "wrn-16-2": (12, 12, 3),
    "text-cnn-small": (24,),
}
LARGE = [
    "applications:MobileNetV2",
    "applications:EfficientNetV2B0",
    "applications:ResNet50V2",
    "applications:DenseNet121",
]


def every_case(x: Any) -> Any:
    """A stem, a block with a gate for each channel, one beside its input, one whose channels meet, and maps made flat."""
    x = layers.ReLU(name="stem-relu")(
        layers.BatchNormalization(name="stem-norm")(layers.Conv2D(8, 3, name="stem", use_bias=False)(x))
    )
    deep = layers.DepthwiseConv2D(3, padding="same", name="deep")(
        layers.Conv2D(12, 1, activation="relu", name="wide")(x)
    )
    mean = layers.Reshape((1, 1, 12), name="mean-map")(layers.GlobalAveragePooling2D(name="mean")(deep))
    gate = layers.Conv2D(12, 1, activation="sigmoid", name="gate")(
        layers.Conv2D(4, 1, activation="relu", name="squeeze")(mean)
    )
    back = layers.Conv2D(8, 1, name="back")(layers.Multiply(name="gated")([deep, gate]))
    x = layers.Add(name="stream")([x, back])
    twice = layers.Conv2D(8, 3, padding="same", name="twice")
    beside = layers.Concatenate(name="beside")(
        [twice(twice(layers.Conv2D(8, 1, name="before")(x))), layers.Conv2D(6, 1, name="read")(x)]
    )
    grouped = layers.Conv2D(6, 1, groups=2, name="grouped")(beside)
    x = layers.Conv2D(10, 3, strides=2, activation="relu", name="last")(layers.ZeroPadding2D(1, name="pad")(grouped))
    x = layers.Dense(6, activation="relu", name="dense")(layers.Flatten(name="flat")(x))
    return layers.Dense(4, activation="softmax", name="shares")(x)


def opened(of: str) -> Trunk:
    if of != "every case":
        return trunk.trunk(architectures.resolve(of), SHAPES.get(of, (32, 32, 3)))
    given = keras.Input((10, 10, 2))
    return lay_open(keras.Model(given, every_case(given)))


def built(of: Trunk, width: float) -> tuple[Any, dict[str, Any]]:
    """A Keras model of a share of its channels, and its layers with numbers, by name."""
    given = keras.Input(of.trace.input)
    model = keras.Model(given, channels.build(of, width, given))
    return model, {layer.name: layer for layer in model.layers if layer.weights}


def arbitrary(layers: dict[str, Any]) -> None:
    """Numbers under which every channel has something to say."""
    rng = np.random.default_rng(0)
    for layer in layers.values():
        arrays = []
        for variable in layer.weights:
            sides = tuple(variable.shape)
            scale = np.sqrt(2 / max(1, int(np.prod(sides[:-1]))))
            ranges = {"gamma": (0.5, 1.5), "moving_variance": (0.5, 1.5), "moving_mean": (-0.2, 0.2)}
            low_high = ranges.get(variable.name)
            arrays.append(rng.normal(0, scale, sides) if low_high is None else rng.uniform(*low_high, sides))
        layer.set_weights(arrays)


@pytest.mark.parametrize("of", ["every case", *SHAPES, *(pytest.param(one, marks=pytest.mark.long) for one in LARGE)])
def test_it_answers_as_the_whole_network_in_which_the_other_channels_are_nothing(of: str) -> None:
    of_trunk = opened(of)
    model, layers = built(of_trunk, 1.0)  # all channels: the same layers under their names
    arbitrary(layers)
    weights = {name: layer.get_weights() for name, layer in layers.items()}
    found = channels.groups(of_trunk)
    kept = channels.chosen(found, weights, 0.5)
    assert kept, "a network of which nothing can be narrower shows nothing"

    made, features = channels.narrowed(of_trunk, weights, 0.5)
    small, narrow_layers = built(of_trunk, 0.5)
    for name, layer in narrow_layers.items():
        layer.set_weights(made[name])  # which refuses arrays of other shapes
    assert small.count_params() < model.count_params()

    for name, arrays in weights.items():  # a channel is nothing where its maker and its norm say nothing
        own = kept.get(found.root(found.gives[name].group))
        if own is None:
            continue
        falls = np.setdiff1d(np.arange(found.sizes[found.root(found.gives[name].group)]), own)
        for array, variable in zip(arrays, layers[name].weights, strict=True):
            if variable.name not in ("moving_mean", "moving_variance"):
                depthwise = array.shape[-1] != len(own) + len(falls)
                array[(..., falls, slice(None)) if depthwise else (..., falls)] = 0
        layers[name].set_weights(arrays)
    rows = np.random.default_rng(1).uniform(0, 1, (3, *of_trunk.trace.input)).astype(np.float32)
    rows = np.floor(rows * 100) if of.startswith("text") else rows
    answers, expected = (keras.ops.convert_to_numpy(one(rows, training=False)) for one in (small, model))
    assert np.abs(expected).max() > 1e-3
    expected = expected if features is None else expected[..., features]
    np.testing.assert_allclose(answers, expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max())


def test_what_channels_meet_in_keeps_them() -> None:
    narrow, _ = built(opened("every case"), 0.5)
    counts = {layer.name: layer.output.shape[-1] for layer in narrow.layers}
    halved = {"stem": 4, "wide": 6, "gate": 6, "squeeze": 2, "back": 4, "last": 5, "dense": 3}
    whole = {"twice": 8, "before": 8, "read": 6, "beside": 14, "grouped": 6, "shares": 4}
    assert {name: counts[name] for name in {**halved, **whole}} == {**halved, **whole}


def test_those_stay_whose_kernels_have_the_largest_sums() -> None:
    of_trunk = trunk.trunk(architectures.resolve({"arch": "mlp", "units": [4, 2]}), (3,))
    weights = {
        "dense1": [
            np.array([[1, -5, 0, 2], [1, 1, 0, -2], [1, 0, 1, 2]], np.float32),
            np.array([1, 2, 3, 4], np.float32),
        ],
        "dense2": [np.array([[0, 11], [2, 13], [4, 15], [6, 17]], np.float32), np.array([7, 8], np.float32)],
    }
    made, features = channels.narrowed(of_trunk, weights, 0.5)
    # Sums of absolute values: 3, 6, 1, 6 of the first layer; 12, 56 of the second.
    np.testing.assert_array_equal(made["dense1"][0], weights["dense1"][0][:, [1, 3]])
    np.testing.assert_array_equal(made["dense1"][1], [2, 4])
    np.testing.assert_array_equal(made["dense2"][0], [[13], [17]])
    np.testing.assert_array_equal(made["dense2"][1], [8])
    np.testing.assert_array_equal(features, [1])


def test_a_residual_stream_that_is_widened_by_padding_stays_whole() -> None:
    whole, narrow = (
        trunk.trace(architectures.resolve(ref), (12, 12, 1)).by_name
        for ref in ("resnet-8", {"arch": "pruned", "of": "resnet-8", "width": 0.25})
    )
    for block, wide in (("stage1-block1", 16), ("stage2-block1", 32), ("stage3-block1", 64)):
        assert whole[f"{block}-conv1"].shape[-1] == wide
        assert narrow[f"{block}-conv1"].shape[-1] == wide // 4
        assert narrow[f"{block}-add"].shape == whole[f"{block}-add"].shape


def test_each_layer_keeps_one_channel_at_least() -> None:
    trace = trunk.trace(
        architectures.resolve({"arch": "pruned", "of": {"arch": "mlp", "units": [6, 4]}, "width": 0.01}), (5,)
    )
    assert [layer.shape for layer in trace.layers if layer.kind == "Dense"] == [[1], [1]]


def test_layers_keep_the_names_that_a_user_s_network_gave_them() -> None:
    """Even those that Keras's counter could have given: numbers are found by them."""
    kinds = {
        "conv2d_7": ("Conv2D", {"filters": 6, "kernel_size": 3}),
        "conv2d": ("Conv2D", {"filters": 4, "kernel_size": 1}),
    }
    calls = [("conv2d_7", "image"), ("conv2d", "conv2d_7"), ("pool", "conv2d")]
    own = {
        "arch": "keras-graph",
        "given": [{"name": "image", "shape": [12, 12, 1]}],
        "layers": {
            **{name: {"kind": kind, "config": config} for name, (kind, config) in kinds.items()},
            "pool": {"kind": "GlobalAveragePooling2D"},
        },
        "calls": [{"name": name, "layer": name, "args": [{"tensor": given}]} for name, given in calls],
        "features": "pool",
    }
    trace = trunk.trace(architectures.resolve({"arch": "pruned", "of": own}), (12, 12, 1))
    assert {layer.name: layer.shape[-1] for layer in trace.layers} == {"conv2d_7": 3, "conv2d": 2, "pool": 2}


def test_what_has_no_network_to_be_made_of_says_so() -> None:
    with pytest.raises(ValueError, match="no teacher"):
        trunk.trace(architectures.resolve("pruned"), (5,))
