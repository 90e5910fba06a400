"""Networks of keras.applications, layer by layer: they answer as Keras's own, begin, freeze, adapt and are kept as any other."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.spec import architectures
from app.spec.architectures import applications
from app.spec.data import InputSchema
from app.spec.models import Manifest
from app.spec.training import OptimizerSpec
from tests.worker.training.small import DIGIT, fit, network, same, stored
from worker.training.data import batches
from worker.training.data.batches import BatchSource, Sampler
from worker.training.fitting import learner
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.kept import export, formats
from worker.training.networks import backbone, build, trunk
from worker.training.networks.architectures.applications import whole as keras_own
from worker.training.networks.initial import drawn
from worker.training.networks.network import Lora, Network
from worker.training.tasks import heads

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TINY: dict[str, Any] = {"arch": "applications", "name": "MobileNetV2", "alpha": 0.35, "size": [32, 32]}
SEEN = InputSchema(kind="image", shape=[32, 32, 3], scale=255.0)

PARAMETERS = {
    "MobileNetV2": (1280, 2_257_984),
    "EfficientNetV2B0": (1280, 5_919_312),
    "ResNet50V2": (2048, 23_564_800),
    "DenseNet121": (1024, 7_037_504),
    "Xception": (2048, 20_861_480),
}
"""Features and parameters without the top, as keras.io says."""


@pytest.fixture(scope="module")
def whole() -> Network:
    return network([DIGIT], 3, TINY, SEEN)


def pictures(n: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def inside(whole: Network) -> dict[str, list[np.ndarray]]:
    return {name: arrays for name, arrays in whole.weights.items() if name.startswith("backbone-")}


PREPROCESSING = {
    "MobileNetV2": keras.applications.mobilenet_v2.preprocess_input,
    "EfficientNetV2B0": keras.applications.efficientnet_v2.preprocess_input,  # passes on: the network has it inside
    "ResNet50V2": keras.applications.resnet_v2.preprocess_input,
    "DenseNet121": keras.applications.densenet.preprocess_input,
    "Xception": keras.applications.xception.preprocess_input,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", applications.NAMES)
def test_laid_open_it_answers_as_keras_own_network_on_its_own_preprocessing(name: applications.ApplicationName) -> None:
    side = applications.APPLICATIONS[name].least
    shape = InputSchema(kind="image", shape=[side, side, 3], scale=255.0)
    made = network([DIGIT], 0, {"arch": "applications", "name": name, "size": [side, side]}, shape)
    assert (made.trace.features_shape[0], made.trace.parameters) == PARAMETERS[name]
    own = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(side, side, 3), pooling="avg")
    numbers = [array for arrays in inside(made).values() for array in arrays]
    own.set_weights(numbers)
    rows = pictures(2, side).astype(np.float32)
    expected = np.asarray(own(PREPROCESSING[name](rows.copy()), training=False))
    found = np.asarray(build.keras_layers(made).body(rows / 255, training=False))
    largest = float(np.abs(expected).max())
    assert largest > 1e-6
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * largest)
    with pytest.raises(ValueError, match="at least"):
        getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(side - 1, side, 3))


@pytest.mark.parametrize(
    ("alpha", "features", "parameters"),
    [
        (0.35, 1280, 410_208),
        (0.5, 1280, 706_224),
        (0.75, 1280, 1_382_064),
        (1.3, 1664, 3_766_048),
        (1.4, 1792, 4_363_712),
    ],
)
def test_widths_of_mobilenet_have_their_features_and_parameters(alpha: float, features: int, parameters: int) -> None:
    trace = trunk.trace(applications.Spec(alpha=alpha, size=[32, 32]), (32, 32, 3))
    assert (trace.features_shape, trace.parameters) == ((features,), parameters)


def test_what_it_sees_of_pictures_is_known_without_keras() -> None:
    architecture = architectures.resolve("applications:MobileNetV2")
    assert architecture.trunk_shape((28, 28, 1)) == (32, 32, 3)
    assert architecture.trunk_shape((100, 40, 3)) == (100, 40, 3)
    pinned = architecture.fitted((100, 40, 1))
    assert architectures.as_data(pinned)["size"] == [100, 40]
    assert pinned.trunk_shape((9, 9, 1)) == pinned.trunk_shape((100, 40, 3)) == (100, 40, 3)
    assert trunk.trace(pinned, (28, 28, 1)).shapes["backbone"] == (1280,)
    with pytest.raises(ValueError, match="three channels"):
        architectures.trunk_shape(architecture, (28, 28, 2))
    with pytest.raises(ValueError, match="image inputs"):
        architectures.trunk_shape(architecture, (13,))


def test_keras_own_file_names() -> None:
    named = applications.imagenet_file
    assert named(applications.Spec(size=[96, 96])).endswith("kernels_1.0_96_no_top.h5")
    assert named(applications.Spec(size=[32, 32], alpha=0.35)).endswith("kernels_0.35_224_no_top.h5")
    assert named(applications.Spec(name="Xception")) == "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"


def test_numbers_are_drawn_from_the_seed_alone_and_depthwise_kernels_by_their_own_fan(whole: Network) -> None:
    for seed, alike in ((3, True), (4, False)):
        _, layers = backbone.layers(applications.Spec(alpha=0.35, size=[32, 32]))
        numbers = {name: drawn(layer, seed, drawn_as) for name, (drawn_as, layer) in layers.items()}
        assert same(numbers, inside(whole)) == alike
    # Layer 1 behind the network's own input: what it was drawn by while the network was one layer.
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(b"3/backbone/1", digest_size=4).digest(), "big") >> 1)
    kernel = whole.weights["backbone-Conv1"][0]
    limit = (6 / (9 * (kernel.shape[2] + kernel.shape[3]))) ** 0.5
    assert np.array_equal(kernel, rng.uniform(-limit, limit, kernel.shape).astype(np.float32))
    assert whole.parameters == 410_208 + 1281 * 4
    depthwise = whole.weights["backbone-block_3_depthwise"][0]
    assert 0.9 * (6 / 18) ** 0.5 < np.abs(depthwise).max() <= (6 / 18) ** 0.5
    assert (whole.weights["backbone-bn_Conv1"][0] == 1).all()


def fit_spec(whole: Network, n: int = 16) -> FitSpec:
    given = heads.targets(DIGIT, stored(DIGIT, n))
    batch_source = BatchSource(pictures(n), whole.scaling, given, [Sampler(np.arange(n), 8, 0)])
    return FitSpec(LossSpec({"d": ["digit"]}, whole.tasks), {"d": batch_source}, {})


@pytest.mark.slow
def test_a_frozen_backbone_stays_bit_for_bit_and_frozen_norms_keep_their_statistics(
    whole: Network, tmp_path: Path
) -> None:
    frozen = Phase(3, 0.01, frozenset(whole.trunk), True, cache=False)
    found = fit(tmp_path / "frozen", whole, fit_spec(whole), [frozen])
    assert same(inside(found), inside(whole))
    assert not same({"h": found.weights["digit_logits"]}, {"h": whole.weights["digit_logits"]})

    tuned = fit(tmp_path / "tuned", whole, fit_spec(whole), [Phase(2, 0.01, frozenset(), True)])
    norms = [layer.name for layer in whole.trace.layers if layer.kind == "BatchNormalization"]
    assert len(norms) == 52
    unchanged = {name for name in inside(whole) if same({"l": whole.weights[name]}, {"l": tuned.weights[name]})}
    assert unchanged == set(norms)


@pytest.mark.slow
@pytest.mark.parametrize("norms", [pytest.param("kept", marks=pytest.mark.long), "trained", "kept, half frozen"])
def test_fine_tuning_is_a_hand_written_loop_bit_for_bit(norms: str) -> None:
    """Norms that are kept run in inference mode, and learn nothing; frozen layers as well, their dropout too; all else trains."""
    import tensorflow as tf

    made = network([DIGIT], 0, {"arch": "applications", "name": "EfficientNetV2B0", "size": [32, 32]}, SEEN)
    keras_layers, kept = build.keras_layers(made), norms != "trained"
    half = frozenset(made.trunk[: len(made.trunk) // 2]) if "half" in norms else frozenset[str]()
    spec, words = fit_spec(made), OptimizerSpec(name="adam")
    ours = Compiled(keras_layers, spec.loss_spec, lambda: learner.optimizer(words, 0.01), half, kept)
    keras_layers.reseed(5)
    ours.begin()

    model = keras.models.clone_model(keras_layers.forward)
    twins = [
        (variable, twin)
        for layer, other in zip(keras_layers.forward.layers, model.layers, strict=True)
        for variable, twin in zip(layer.variables, other.variables, strict=True)
    ]
    for variable, twin in twins:
        twin.assign(variable.value)
    begins_as = {variable.path: np.array(variable.value) for variable, _ in twins}
    for layer in model.layers:
        layer.trainable = layer.name not in half and not (kept and isinstance(layer, keras.layers.BatchNormalization))
        if layer.name in half and isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            sure = tf.nn.log_softmax(model(x, training=True)["digit"])
            value = tf.reduce_sum(-tf.gather(sure, y, batch_dims=1)) / len(y)
        optimizer.apply_gradients(
            zip(tape.gradient(value, model.trainable_weights), model.trainable_weights, strict=True)
        )

    for number in range(3):
        batch = batches.batch(spec.batch_sources, number)
        ours.step(batch)
        step(batch[0]["d"], batch[1]["digit"])
    after = {variable.path: np.array(variable.value) for variable, _ in twins if "seed" not in variable.path}
    apart = [
        variable.path
        for variable, twin in twins
        if variable.path in after and not np.array_equal(np.array(twin.value), after[variable.path])
    ]
    assert apart == []
    moved = {path for path in after if not np.array_equal(after[path], begins_as[path])}
    assert any("moving_mean" in path for path in moved) == (not kept)
    assert any("gamma" in path for path in moved) == (not kept)
    assert not any(path.split("/")[0] in half for path in moved)
    assert {path.split("/")[0] for path in moved} >= {"digit_logits", "backbone-top_conv"}


@pytest.mark.slow
def test_dropout_within_a_backbone_is_drawn_from_the_seed_and_off_where_it_is_frozen() -> None:
    made = network([DIGIT], 0, {"arch": "applications", "name": "EfficientNetV2B0", "size": [32, 32]}, SEEN)
    keras_layers = build.keras_layers(made)
    drops = {name: layer for name, layer in keras_layers.layers.items() if isinstance(layer, keras.layers.Dropout)}
    assert len(drops) > 5
    held = {id(variable) for variable in keras_layers.forward.variables}  # what a checkpoint has
    assert all(id(one.seed_generator.state) in held for one in drops.values())
    states = []
    for seed in (1, 2, 1):
        keras_layers.reseed(seed)
        states.append([one.seed_generator.state.numpy().tolist() for one in drops.values()])
    assert states[0] == states[2] != states[1]
    assert len({str(state) for state in states[0]}) == len(drops)
    ones = np.ones((4, 1, 1, 8), np.float32)

    def drop() -> list[bool]:
        return [not np.array_equal(np.asarray(one(ones, training=True)), ones) for one in drops.values()]

    keras_layers.freeze(made.trunk, False)
    assert not any(drop())
    keras_layers.freeze([], False)
    found = [drop() for _ in range(40)]
    assert all(any(each) for each in zip(*found, strict=True))


def test_its_groups_are_its_blocks(whole: Network) -> None:
    groups = whole.trace.groups
    assert [name for group in groups for name in group] == whole.trace.names
    blocks = [group for group in groups if any(name.endswith("_add") for name in group)]
    assert len(blocks) == 10  # those of MobileNetV2 that have a skip
    for group in blocks:
        assert len({name.rpartition("_")[0].removesuffix("_depthwise") for name in group if "_" in name}) >= 1
        assert len([name for name in group if whole.trace.by_name[name].kernel]) == 3
    assert groups[-1][-1] == whole.trace.features


@pytest.mark.slow
def test_a_kept_backbone_is_read_back_and_exported(whole: Network, tmp_path: Path) -> None:
    sha = export.write(whole, tmp_path / "model.keras")
    about = export.manifest(whole, "model", sha, file="model.keras", rows_file=None, dataset={}, training={})
    again = export.read(tmp_path / "model.keras", Manifest.model_validate_json(about.model_dump_json()))
    assert same(again.weights, whole.weights)
    keras_layers = build.keras_layers(again)
    rows = pictures(5)
    tapped = keras_layers.tap(["backbone", "backbone-block_2_add"])(again.scaling(rows), training=False)
    features = np.asarray(tapped["feature/backbone"])
    assert features == pytest.approx(np.asarray(keras_layers.body(again.scaling(rows), training=False)), abs=1e-6)
    assert features.shape == (5, 1280)
    assert tapped["feature/backbone-block_2_add"].shape == (5, 8, 8, 8)
    told = formats.write(whole, ["saved_model"], rows, tmp_path)
    assert told["saved_model"]["largest_difference"] <= 1e-5
    export.check(tmp_path / "model.keras", whole, rows, {"digit": heads.answers(DIGIT, np.asarray(tapped["digit"]))})


@pytest.mark.slow
def test_a_model_that_was_kept_while_a_backbone_was_one_layer_is_read_layer_by_layer(
    whole: Network, tmp_path: Path
) -> None:
    inputs = keras.Input((32, 32, 3), name="input", dtype="float32")
    nested = keras_own(applications.Spec(alpha=0.35, size=[32, 32]), (32, 32))
    nested.set_weights([array for arrays in inside(whole).values() for array in arrays])
    x = keras.layers.Rescaling(1 / 255, 0.0, name="preprocessing", dtype="float32")(inputs)
    logits = keras.layers.Dense(4, name="digit_logits")
    x = logits(nested(keras.layers.Rescaling(2.0, -1.0, name="backbone_scaled")(x)))
    old = keras.Model(inputs, {"digit": keras.layers.Softmax(name="digit")(x)}, name="model")
    logits.set_weights(whole.weights["digit_logits"])
    old.save(tmp_path / "old.keras")
    about = export.manifest(whole, "model", "0", file="old.keras", rows_file=None, dataset={}, training={})
    about = about.model_copy(update={"layers": ["backbone", "digit_logits"]})
    again = export.read(tmp_path / "old.keras", about)
    assert same(again.weights, whole.weights)
    rows = pictures(3)
    found = build.keras_layers(again).forward.predict_on_batch(again.scaling(rows))["digit"]
    expected = old.predict_on_batch(rows.astype(np.float32))["digit"]
    assert heads.answers(DIGIT, np.asarray(found)) == pytest.approx(expected, abs=1e-5)


# --- adapters


@pytest.mark.slow
def test_adapters_in_every_block_are_what_the_paper_says_of_them(whole: Network) -> None:
    """W + α/r·B·A (Hu et al. 2021, equation 3): nothing before the first step, A and B alone learn, and merged equals unmerged."""
    rank, alpha = 2, 6.0
    targets = tuple(layer.name for layer in whole.trace.layers if layer.adaptable)
    kinds = {whole.trace.by_name[name].kind for name in targets}
    assert (len(targets), kinds) == (35, {"Conv2D"})  # Keras has no adapters of depthwise kernels
    adapted = replace(whole, lora=Lora(rank, alpha, targets))
    frozen = frozenset(set(whole.trunk).difference(targets))
    keras_layers = build.keras_layers(adapted)
    words = OptimizerSpec(name="adam")
    loss_spec = LossSpec({"d": ["digit"]}, whole.tasks)
    made = Compiled(keras_layers, loss_spec, lambda: learner.optimizer(words, 1e-2), frozen, True)
    keras_layers.reseed(0)
    made.begin()
    x = whole.scaling(pictures(4))
    before = build.keras_layers(whole).forward.predict_on_batch(x)["digit"]
    assert np.array_equal(keras_layers.forward.predict_on_batch(x)["digit"], before)
    learnt = {variable.path for variable in made.learner.trainable_variables}
    assert learnt == {f"{name}/lora_kernel_{letter}" for name in targets for letter in "ab"} | {
        "digit_logits/kernel",
        "digit_logits/bias",
    }
    batch_sources = fit_spec(whole).batch_sources
    for step in range(3):
        made.step(batches.batch(batch_sources, step))
    merged = replace(whole, weights=keras_layers.read(), lora=None)
    unmerged = keras_layers.forward.predict_on_batch(x)["digit"]
    assert not np.allclose(unmerged, before, atol=1e-3)
    assert np.allclose(build.keras_layers(merged).forward.predict_on_batch(x)["digit"], unmerged, atol=1e-4)
    for name in targets:
        layer = keras_layers.layers[name]
        a, b = (np.array(one.value, np.float64) for one in (layer.lora_kernel_a, layer.lora_kernel_b))
        assert np.abs(b).max() > 0
        expected = whole.weights[name][0] + alpha / rank * np.einsum("hwir,ro->hwio", a, b)
        assert np.allclose(merged.weights[name][0], expected, atol=1e-6)
    others = [name for name in whole.weights if name not in (*targets, "digit_logits")]
    assert same({name: merged.weights[name] for name in others}, {name: whole.weights[name] for name in others})
