"""Networks of keras.applications as one layer: what is written of them is what Keras builds, they begin, freeze, are kept as any other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.spec import architectures
from app.spec.architectures import applications
from app.spec.data import InputSchema
from app.spec.models import Manifest
from tests.worker.training.small import DIGIT, fit, network, same, stored
from worker.training import sharing
from worker.training.data.batches import Feed, Line
from worker.training.fitting.goal import Goal
from worker.training.fitting.plan import Lesson, Phase
from worker.training.kept import export, formats
from worker.training.networks import backbone, build
from worker.training.networks.initial import drawn
from worker.training.networks.network import Network
from worker.training.tasks import heads

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TINY: dict[str, Any] = {"arch": "applications", "name": "MobileNetV2", "alpha": 0.35, "size": [32, 32]}
SEEN = InputSchema(kind="image", shape=[32, 32, 3], scale=255.0)


@pytest.fixture(scope="module")
def whole() -> Network:
    return network([DIGIT], 3, TINY, SEEN)


def pictures(n: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


PREPROCESSING = {
    "MobileNetV2": keras.applications.mobilenet_v2.preprocess_input,
    "EfficientNetV2B0": keras.applications.efficientnet_v2.preprocess_input,  # passes on: the network has it inside
    "ResNet50V2": keras.applications.resnet_v2.preprocess_input,
    "DenseNet121": keras.applications.densenet.preprocess_input,
    "Xception": keras.applications.xception.preprocess_input,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", applications.NAMES)
def test_what_is_written_of_an_application_is_what_keras_builds(name: applications.ApplicationName) -> None:
    about = applications.APPLICATIONS[name]
    side = about.least
    architecture = applications.Spec(name=name).fitted((side, side, 3))
    scaled, layer = architecture.layers()
    live = backbone.made(layer.options, "backbone", "float32")
    assert live.output_shape == (None, about.features[1.0])
    assert live.count_params() == about.parameters[1.0]
    keras_own = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(side, side, 3), pooling="avg"
    )
    numbers = drawn({"backbone": live}, 0)["backbone"]
    assert sum(array.size for array in numbers) == about.parameters[1.0]
    for model in (live, keras_own):
        model.set_weights(numbers)
    rows = pictures(2, side).astype(np.float32)
    expected = np.asarray(keras_own(PREPROCESSING[name](rows.copy()), training=False))
    own = keras.layers.Rescaling(scaled.options["scale"], scaled.options["offset"])
    found = np.asarray(live(own(rows / 255), training=False))
    largest = float(np.abs(expected).max())
    assert largest > 1e-6
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * largest)
    with pytest.raises(ValueError, match="at least"):
        getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(side - 1, side, 3))
    # read back from a file the numbers have the same order
    again = keras.Model.from_config(live.get_config())
    assert [variable.shape for variable in again.weights] == [variable.shape for variable in live.weights]
    assert [variable.path for variable in again.weights] == [variable.path for variable in live.weights]


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [one for one in applications.APPLICATIONS["MobileNetV2"].features if one != 1])
def test_widths_of_mobilenet_have_the_features_and_parameters_that_are_written(alpha: float) -> None:
    (_, layer) = applications.Spec(alpha=alpha, size=[32, 32]).layers()
    live = backbone.made(layer.options, "backbone", "float32")
    assert (live.output_shape[-1], live.count_params()) == (layer.options["features"], layer.options["parameters"])


def test_shapes_and_parameters_are_known_without_keras() -> None:
    architecture = architectures.resolve("applications:MobileNetV2")
    assert architecture.sees((28, 28, 1)) == (32, 32, 3)
    assert architecture.sees((100, 40, 3)) == (100, 40, 3)
    pinned = architecture.fitted((100, 40, 1))
    assert architectures.as_data(pinned)["size"] == [100, 40]
    assert pinned.sees((9, 9, 1)) == pinned.sees((100, 40, 3)) == (100, 40, 3)
    assert architectures.count_parameters(architecture, (28, 28, 1), {"digit": 10}) == 2_257_984 + 1281 * 10
    assert [step.shape for step in architectures.trace(pinned, (28, 28, 1))] == [(100, 40, 3), (1280,)]
    with pytest.raises(ValueError, match="three channels"):
        architectures.trace(architecture, (28, 28, 2))
    with pytest.raises(ValueError, match="image inputs"):
        architectures.trace(architecture, (13,))


def test_keras_own_file_names() -> None:
    named = applications.imagenet_file
    assert named(applications.Spec(size=[96, 96])).endswith("kernels_1.0_96_no_top.h5")
    assert named(applications.Spec(size=[32, 32], alpha=0.35)).endswith("kernels_0.35_224_no_top.h5")
    assert named(applications.Spec(name="Xception")) == "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"


def test_numbers_are_drawn_from_the_seed_alone_and_depthwise_kernels_by_their_own_fan(whole: Network) -> None:
    live = build.live(whole).layers["backbone"]
    for seed, alike in ((3, True), (4, False)):
        assert same(drawn({"backbone": live}, seed), {"backbone": whole.weights["backbone"]}) == alike
    assert whole.parameters == 410_208 + 1281 * 4
    depthwise = live.get_layer("block_3_depthwise").kernel.numpy()
    assert 0.9 * (6 / 18) ** 0.5 < np.abs(depthwise).max() <= (6 / 18) ** 0.5
    assert (live.get_layer("bn_Conv1").gamma.numpy() == 1).all()


def lesson(whole: Network, n: int = 16) -> Lesson:
    given = heads.targets(DIGIT, stored(DIGIT, n))
    feed = Feed(pictures(n), whole.scaling, given, [Line(np.arange(n), 8, 0)])
    return Lesson(Goal({"d": ["digit"]}, whole.tasks), {"d": feed}, {})


def sha256(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.slow
def test_a_frozen_backbone_stays_bit_for_bit_and_frozen_norms_keep_their_statistics(
    whole: Network, tmp_path: Path
) -> None:
    before = sha256(whole.weights["backbone"])
    frozen = Phase(3, 0.01, frozenset(whole.trunk), True, cache=False)
    found = fit(tmp_path / "frozen", whole, lesson(whole), [frozen])
    assert sha256(found.weights["backbone"]) == before
    assert not same({"h": found.weights["digit_logits"]}, {"h": whole.weights["digit_logits"]})

    live = build.live(whole).layers["backbone"]
    owners = {id(one): inner for _, inner in backbone.parts("b", live) for one in inner.weights}
    norms = [isinstance(owners[id(one)], keras.layers.BatchNormalization) for one in live.weights]
    tuned = fit(tmp_path / "tuned", whole, lesson(whole), [Phase(2, 0.01, frozenset(), True)])
    pairs = list(zip(norms, whole.weights["backbone"], tuned.weights["backbone"], strict=True))
    assert sum(norms) == 4 * 52
    assert all(np.array_equal(one, two) == norm for norm, one, two in pairs)


@pytest.mark.slow
def test_dropout_within_a_backbone_is_drawn_from_the_seed_and_off_where_it_is_frozen() -> None:
    made = backbone.made(
        applications.Spec(name="EfficientNetV2B0", size=[32, 32]).layers()[1].options, "backbone", "float32"
    )
    drops = [inner for _, inner in backbone.parts("backbone", made) if isinstance(inner, keras.layers.Dropout)]
    assert drops
    held = {id(variable) for variable in made.variables}  # what a checkpoint has
    assert all(id(inner.seed_generator.state) in held for inner in drops)
    for inner in drops:
        inner.asked_rate = inner.rate
    live = build.Live(None, None, None, {"backbone": made}, sharing.Graph((), {}), {})
    states = []
    for seed in (1, 2, 1):
        live.reseed(seed)
        states.append([inner.seed_generator.state.numpy().tolist() for inner in drops])
    assert states[0] == states[2] != states[1]
    assert len({str(state) for state in states[0]}) == len(drops)
    asked = [inner.asked_rate for inner in drops]
    live.freeze(["backbone"], False)
    assert not any(inner.rate for inner in drops)
    live.freeze([], False)
    assert [inner.rate for inner in drops] == asked


@pytest.mark.slow
def test_a_kept_backbone_is_read_back_and_exported(whole: Network, tmp_path: Path) -> None:
    sha = export.write(whole, tmp_path / "model.keras")
    about = export.manifest(whole, "model", sha, file="model.keras", rows_file=None, dataset={}, training={})
    again = export.read(tmp_path / "model.keras", Manifest.model_validate_json(about.model_dump_json()))
    assert same(again.weights, whole.weights)
    live = build.live(again)
    rows = pictures(5)
    tapped = live.tap(["backbone"])(again.scaling(rows), training=False)
    features = np.asarray(tapped["feature/backbone"])
    assert features == pytest.approx(np.asarray(live.body(again.scaling(rows), training=False)), abs=1e-6)
    assert features.shape == (5, 1280)
    told = formats.write(whole, ["saved_model"], rows, tmp_path)
    assert told["saved_model"]["largest_difference"] <= 1e-5
    export.check(tmp_path / "model.keras", whole, rows, {"digit": heads.answers(DIGIT, np.asarray(tapped["digit"]))})
