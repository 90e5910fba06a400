"""A user's model, taken apart into a graph and built again by us: it answers as it did in plain Keras, and is trained as any network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.spec import architectures
from app.spec.architectures.keras_graph import EXAMPLE, Call, Spec, StockLayer
from app.spec.faults import Invalid
from app.spec.models import Manifest
from tests.worker.training.networks import corpus
from tests.worker.training.networks.users_models import built, flat, inputs_of, network, numbered, outputs, read
from tests.worker.training.small import DIGIT, fit, stored
from worker.training.data.batches import BatchSource, Sampler
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.kept import export, formats
from worker.training.networks import opened, trunk
from worker.training.networks.architectures import keras_graph
from worker.training.networks.network import Lora, Network
from worker.training.tasks import heads

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

ROWS = 16


@pytest.mark.parametrize("name", list(corpus.MODELS))
def test_a_model_built_again_answers_as_it_did(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = numbered(corpus.MODELS[name]())
    given = inputs_of(model)
    expected = outputs(model, given)
    net, keras_layers = built(model)
    assert net.trace.parameters == model.count_params()
    found = np.asarray(keras_layers.body(flat(given), training=False))
    tolerance = 1e-6 if name != "half_precision" else 0.02
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("MobileNetV2", 32), ("MobileNetV3Small", 32), ("EfficientNetB0", 32), ("EfficientNetV2B0", 32), ("ResNet50V2", 32),
        ("VGG16", 32), ("ConvNeXtTiny", 32),
        *(pytest.param(*large, marks=pytest.mark.long) for large in (
            ("DenseNet121", 32), ("Xception", 71), ("InceptionV3", 75), ("InceptionResNetV2", 75), ("NASNetMobile", 32),
            ("MobileNet", 32), ("ResNet50", 32),
        )),
    ],
)  # fmt: skip
def test_a_family_of_keras_applications_answers_as_it_did(name: str, size: int) -> None:
    keras.utils.set_random_seed(0)
    own: dict[str, Any] = {"alpha": 0.35} if name.startswith("MobileNetV2") else {}
    model = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg", **own
    )
    given = {key: 100 * np.abs(value) for key, value in inputs_of(model, 2).items()}
    expected = outputs(model, given)
    net, keras_layers = built(model)
    assert net.trace.parameters == model.count_params()
    found = np.asarray(keras_layers.body(flat(given), training=False))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


# --- trained


def fit_spec(net: Network, rows: np.ndarray) -> FitSpec:
    targets = heads.targets(DIGIT, stored(DIGIT, ROWS))
    source = BatchSource(rows, net.scaling, targets, [Sampler(np.arange(ROWS), 8, 0)])
    return FitSpec(LossSpec({"d": ["digit"]}, net.tasks), {"d": source}, {})


def changed(net: Network, other: Network) -> set[str]:
    return {
        name
        for name, arrays in net.weights.items()
        if not all(np.array_equal(*pair) for pair in zip(arrays, other.weights[name], strict=True))
    }


TRAINED = [
    "noisy", "lstm", "cells", "in_time", "spectral", "augmented", "siamese_of_a_model", "several_inputs", "encoder_decoder",
    "normalized", "categories",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_model_is_tuned_frozen_adapted_kept_and_exported(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = numbered(corpus.MODELS[name]())
    net, keras_layers = built(model)
    rows = flat(inputs_of(model, ROWS))
    asked = fit_spec(net, rows)

    tuned = [fit(tmp_path / f"{n}", net, asked, [Phase(2, 0.05, frozenset(), False)], seed=5) for n in "ab"]
    assert not changed(*tuned)
    assert changed(net, tuned[0]) == {name for name in net.weights if not name.startswith("normalization")}

    for cache in (False, True):
        frozen = fit(tmp_path / f"{cache}", net, asked, [Phase(2, 0.05, frozenset(net.trunk), True, cache=cache)])
        assert changed(net, frozen) == {"digit_logits"}

    targets = tuple(layer.name for layer in net.trace.layers if layer.adaptable)
    if targets:
        phase = Phase(2, 0.05, frozenset(net.trunk) - set(targets), True)
        adapted = fit(tmp_path / "lora", replace(net, lora=Lora(2, 4.0, targets)), asked, [phase])
        assert changed(net, adapted) == {*targets, "digit_logits"}

    sha = export.write(net, tmp_path / "model.keras")
    about = export.manifest(net, "model", sha, file="model.keras", rows_file=None, dataset={}, training={})
    again = export.read(tmp_path / "model.keras", Manifest.model_validate_json(about.model_dump_json()))
    assert not changed(net, again)
    logits = np.asarray(keras_layers.forward(rows, training=False)["digit"])
    export.check(tmp_path / "model.keras", net, rows, {"digit": heads.answers(DIGIT, logits)})
    if name == "categories" and keras.backend.backend() == "jax":
        return  # TensorFlow looks its numbers up, which JAX cannot write into a graph
    assert formats.write(net, ["saved_model"], rows, tmp_path)["saved_model"]["largest_difference"] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "augmented", "called_in_a_loop", "transformer"])
def test_a_model_is_exported_to_other_programs(name: str, tmp_path: Path) -> None:
    model = numbered(corpus.MODELS[name]())
    net, _ = built(model)
    told = formats.write(net, ["litert", "onnx"], flat(inputs_of(model, ROWS)), tmp_path)
    assert all(one["largest_difference"] <= 1e-5 for one in told.values())


# --- numbers and seeds


@pytest.mark.parametrize("name", list(corpus.MODELS))
def test_every_stock_layer_has_first_numbers_that_are_its_own(name: str) -> None:
    spec, _ = read(corpus.MODELS[name]())
    net = network(spec, {})
    assert all(np.isfinite(array).all() for arrays in net.weights.values() for array in arrays)
    again = network(spec, {})
    assert not changed(net, again)


def named(net: Network, beginning: str) -> str:
    """The layer whose name Keras has counted in this process."""
    (name,) = (name for name in net.weights if name.startswith(beginning))
    return name


def test_first_numbers_of_recurrent_layers() -> None:
    net = network(read(corpus.MODELS["lstm"]())[0], {})
    kernel, recurrent, bias = net.weights[named(net, "lstm")]
    assert np.abs(kernel).max() <= (6 / (kernel.shape[0] + kernel.shape[1])) ** 0.5
    assert recurrent @ recurrent.T == pytest.approx(np.eye(3), abs=1e-6)
    assert bias.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    net = network(read(corpus.MODELS["normalized"]())[0], {})
    mean, variance, count = net.weights[named(net, "normalization")]
    assert (mean.tolist(), variance.tolist(), count.dtype, int(count)) == ([0.0] * 5, [1.0] * 5, np.int64, 0)


@pytest.mark.parametrize(
    "name", ["lstm", "bidirectional", "in_time", "noisy", "transformer", "other_attention", "augmented"]
)
def test_what_is_random_is_drawn_from_the_seed_and_off_where_it_is_frozen(name: str) -> None:
    net, keras_layers = built(numbered(corpus.MODELS[name]()))
    rows = flat(inputs_of(corpus.MODELS[name](), 4))

    def drawn(seed: int) -> np.ndarray:
        keras_layers.reseed(seed)
        return np.asarray(keras_layers.body(rows, training=True))

    assert np.array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))
    held = {id(variable) for variable in keras_layers.forward.variables}  # what a checkpoint has
    states = [
        generator.state
        for layer in keras_layers.layers.values()
        for part in opened.inner(layer)
        for generator in part._seed_generators
    ]
    assert states
    assert all(id(state) in held for state in states)
    keras_layers.reseed(1)
    assert len({str(np.asarray(state)) for state in states}) == len(states)
    keras_layers.freeze(net.trunk, True)
    assert np.array_equal(drawn(1), np.asarray(keras_layers.body(rows, training=False)))


def test_a_normalization_is_each_networks_own_though_they_share_compiled_layers() -> None:
    net, keras_layers = built(numbered(corpus.MODELS["normalized"]()))
    rows = flat(inputs_of(corpus.MODELS["normalized"]()))
    first = keras_layers.ask(keras_layers.body, rows)
    name = named(net, "normalization")
    mean, variance, count = net.weights[name]
    keras_layers.load({**net.weights, name: [mean + 1, variance, count]})
    moved = keras_layers.ask(keras_layers.body, rows)
    keras_layers.load(net.weights)
    assert not np.array_equal(first, moved)
    assert np.array_equal(keras_layers.ask(keras_layers.body, rows), first)


# --- what is refused


def graph(**changes: Any) -> Spec:
    spec = architectures.resolve({**EXAMPLE, **changes})
    assert isinstance(spec, Spec)
    return spec


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Lambda", {"function": "x"}),
        ("TFSMLayer", {"filepath": "/tmp"}),
        ("deserialize", {"config": {}}),
        ("ops.Operation", {}),
        ("IntegerLookup", {"vocabulary": "/etc/passwd"}),
        ("Dense", {"units": 2, "activation": {"class_name": "function", "config": "load_model"}}),
        ("Dense", {"units": 2, "kernel_initializer": {"module": "os"}}),
        ("Bidirectional", {"layer": {"kind": "Lambda", "config": {}}}),
    ],
)
def test_what_is_no_stock_layer_is_not_built_even_where_nobody_judged_it(kind: str, config: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        graph(layers={**EXAMPLE["layers"], "conv": {"kind": kind, "config": config}})
    sound = graph()
    unjudged = sound.model_copy(update={"layers": {**sound.layers, "conv": StockLayer(kind=kind, config=config)}})
    with pytest.raises(ValueError, match="the layer 'conv'"):
        keras_graph.build(unjudged, keras.Input((12, 12, 1)))


def test_a_tensor_that_nobody_gives_is_said() -> None:
    calls = [{"name": "conv", "layer": "conv", "args": [{"tensor": "nobody"}]}, EXAMPLE["calls"][1]]
    with pytest.raises(Invalid):
        graph(calls=calls)
    unjudged = graph().model_copy(update={"calls": [Call.model_validate(call) for call in calls]})
    with pytest.raises(ValueError, match="no input and no earlier call is named 'nobody'"):
        keras_graph.build(unjudged, keras.Input((12, 12, 1)))


def test_names_that_keras_could_have_counted_stay() -> None:
    layers = {"conv2d_7": EXAMPLE["layers"]["conv"], "conv2d": EXAMPLE["layers"]["pool"]}
    calls = [
        {"name": "a", "layer": "conv2d_7", "args": [{"tensor": "image"}]},
        {"name": "b", "layer": "conv2d", "args": [{"tensor": "a"}]},
    ]
    assert trunk.trace(graph(layers=layers, calls=calls, features="b"), (12, 12, 1)).names == ["conv2d_7", "conv2d"]
