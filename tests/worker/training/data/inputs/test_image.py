"""Pictures of another size or number of channels than a trunk sees: exact layers, none where none is needed, a clear refusal else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.spec.models import Manifest
from tests import plain_keras
from tests.worker.training.small import DIGIT, PICTURE, SIZE, network, same
from worker.training.data.inputs import between
from worker.training.data.inputs import image as input_resize
from worker.training.data.scaling import Scaling
from worker.training.kept import export, formats
from worker.training.methods import _sources
from worker.training.networks import build
from worker.training.networks.inheritance import inherit
from worker.training.networks.network import FEATURES, Network

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

CNN: dict[str, Any] = {"arch": "cnn", "filters": [3, 4], "dense": 6}


def shown(pictures: np.ndarray, trunk_shape: list[int]) -> np.ndarray:
    inputs = keras.Input(pictures.shape[1:])
    return np.asarray(keras.Model(inputs, input_resize.adapted(inputs, trunk_shape)).predict_on_batch(pictures))


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random((3, *shape)).astype(np.float32)


def bilinear(rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """By the formula: centres of pixels at half, edges repeated."""

    def weights(before: int, after: int) -> np.ndarray:
        found = np.zeros((after, before))
        for place in range(after):
            at = min(max((place + 0.5) * before / after - 0.5, 0), before - 1)
            low = min(int(at), before - 1)
            found[place, low] += 1 - (at - low)
            found[place, min(low + 1, before - 1)] += at - low
        return found

    down, across = weights(rows.shape[1], height), weights(rows.shape[2], width)
    return np.einsum("ih,jw,nhwc->nijc", down, across, rows)


def fed(whole: Network, shape: list[int], scale: float = 255.0) -> Network:
    return _sources.resized(whole, PICTURE.model_copy(update={"shape": shape, "scale": scale}))


# --- layers


def test_where_shapes_agree_no_layer_is_added_and_answers_are_the_same_bits() -> None:
    whole = network([DIGIT], 0, CNN, PICTURE)
    inputs = keras.Input((12, 12, 1))
    assert input_resize.adapted(inputs, [12, 12, 1]) is inputs
    assert _sources.resized(whole, PICTURE) is whole
    assert between([12, 12, 1], (12, 12, 1)) is None
    there_and_back = fed(fed(whole, [8, 9, 3]), [12, 12, 1])
    assert there_and_back.input_resize is None
    assert there_and_back.shape_key() == whole.shape_key() != fed(whole, [8, 9, 3]).shape_key()
    names = [layer.name for layer in build.keras_layers(there_and_back).forward.layers]
    assert names == ["input", "conv1", "pool1", "conv2", "flatten", "dense1", "digit_logits"]
    rows = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 1)).astype(np.uint8)
    one, two = (
        build.keras_layers(net).forward.predict_on_batch(net.scaling(rows))["digit"] for net in (whole, there_and_back)
    )
    assert np.array_equal(one, two)


def test_one_channel_is_repeated_and_three_are_averaged() -> None:
    grey, colour = pictures(5, 4, 1), pictures(5, 4, 3)
    assert np.array_equal(shown(grey, [5, 4, 3]), np.repeat(grey, 3, axis=-1))
    assert shown(colour, [5, 4, 1]) == pytest.approx(colour.mean(axis=-1, keepdims=True), abs=1e-7)


@pytest.mark.parametrize("trunk_shape", [[7, 9, 1], [28, 20, 1], [5, 8, 1], [6, 17, 1]])
def test_pictures_are_resized_as_the_bilinear_formula_says(trunk_shape: list[int]) -> None:
    rows = pictures(8, 9, 1)
    found = shown(rows, trunk_shape)
    assert found == pytest.approx(bilinear(rows, trunk_shape[0], trunk_shape[1]), abs=1e-5)
    keras_own = keras.ops.image.resize(rows, trunk_shape[:2], interpolation="bilinear", data_format="channels_last")
    assert found == pytest.approx(np.asarray(keras_own), abs=1e-5)


def test_a_much_larger_picture_gives_way_to_block_means_so_that_every_pixel_counts() -> None:
    rows = pictures(12, 20, 1)
    assert shown(rows, [4, 5, 1]) == pytest.approx(rows.reshape(3, 4, 3, 5, 4, 1).mean(axis=(2, 4)), abs=1e-6)
    blocks = rows[:, :, :18].reshape(3, 6, 2, 9, 2, 1).mean(axis=(2, 4))  # of 2 by 2; the rest is resized
    assert shown(rows[:, :, :19], [5, 8, 1]) == pytest.approx(bilinear(blocks, 5, 8), abs=1e-5)


def test_size_and_channels_change_together() -> None:
    grey, colour = pictures(6, 6, 1), pictures(6, 6, 3)
    assert shown(grey, [9, 9, 3]) == pytest.approx(np.repeat(bilinear(grey, 9, 9), 3, axis=-1), abs=1e-5)
    assert shown(colour, [9, 9, 1]) == pytest.approx(bilinear(colour.mean(axis=-1, keepdims=True), 9, 9), abs=1e-5)


def test_the_report_s_field_and_the_warning_name_what_is_done() -> None:
    whole = network([DIGIT], 0, CNN, PICTURE)
    assert input_resize.about(whole.input.shape, whole.trunk_shape) is None
    other = fed(whole, [30, 8, 3])
    assert input_resize.about(other.input.shape, other.trunk_shape) == {
        "fed": [30, 8, 3],
        "seen": [12, 12, 1],
        "channels": "averaged",
        "block_means": [2, 1],
    }
    assert input_resize.sentence([8, 8, 1], [28, 28, 3]) == (
        "each picture is stretched from 8×8 to 28×28 and repeated for three channels"
    )
    assert input_resize.sentence([8, 8, 3], [8, 8, 1]) == "each picture is averaged over its three channels"


# --- networks


def test_a_network_sees_what_its_own_layers_say_of_a_resized_picture() -> None:
    whole = network([DIGIT, SIZE], 0, CNN, PICTURE)
    other = fed(whole, [8, 8, 3], scale=1.0)
    assert other.scaling == Scaling((0.0,), (1.0,))
    assert other.parameters == whole.parameters
    rows = pictures(8, 8, 3)
    resized = bilinear(rows.mean(axis=-1, keepdims=True), 12, 12).astype(np.float32)
    keras_layers, own = build.keras_layers(other), build.keras_layers(whole)
    for name, values in keras_layers.tap(["conv2", FEATURES]).predict_on_batch(other.scaling(rows)).items():
        expected = own.tap(["conv2", FEATURES]).predict_on_batch(resized)[name]
        assert np.asarray(values) == pytest.approx(np.asarray(expected), abs=1e-5)
    assert keras_layers.body.predict_on_batch(rows) == pytest.approx(own.body.predict_on_batch(resized), abs=1e-5)


def test_what_is_inherited_leaves_pictures_their_own_scale() -> None:
    source = network([DIGIT], 1, CNN, PICTURE)
    fresh = fed(network([DIGIT], 2, CNN, PICTURE), [20, 20, 3], scale=1.0)
    passed = inherit(fresh, source)
    assert passed.fresh == {}
    assert same(passed.network.weights, source.weights)
    assert (passed.network.scaling, passed.network.input_resize) == (Scaling((0.0,), (1.0,)), [12, 12, 1])


PLAIN = """
import sys, numpy as np, keras
assert not any(name.split(".")[0] in ("app", "worker") for name in sys.modules)
rows = np.load("rows.npy")
model = keras.saving.load_model("model.keras")
np.savez("found.npz", **model.predict(rows, verbose=0))
"""


@pytest.mark.slow
def test_a_kept_model_holds_its_adapting_layers_and_is_read_back_for_a_third_size(tmp_path: Path) -> None:
    whole = network([DIGIT, SIZE], 0, CNN, PICTURE)
    other = fed(whole, [25, 8, 3])
    sha256 = export.write(other, tmp_path / "model.keras")
    about = export.manifest(
        other, "model", sha256, file="model.keras", rows_file=None, dataset={}, training={}, rows_shapes=[(8, 8, 1)]
    )
    assert (about.input.shape, about.canvas, about.trunk_input.shape) == ([25, 8, 3], [12, 12, 1], [12, 12, 1])
    again = export.read(tmp_path / "model.keras", Manifest.model_validate_json(about.model_dump_json()))
    assert same(again.weights, whole.weights)
    assert (again.input_resize, again.input) == (other.input_resize, other.input)
    assert again.shape_key() == other.shape_key()
    third = fed(again, [16, 16, 1])
    assert (third.input_resize, third.input.shape) == ([12, 12, 1], [16, 16, 1])
    assert third.shape_key() == fed(whole, [16, 16, 1]).shape_key()
    rows = np.random.default_rng(1).integers(0, 256, (6, 25, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    plain_keras.run(PLAIN, tmp_path)
    found = np.load(tmp_path / "found.npz")
    expected = build.keras_layers(other).forward.predict_on_batch(other.scaling(rows))
    digits = np.exp(expected["digit"]) / np.exp(expected["digit"]).sum(axis=-1, keepdims=True)
    assert found["digit"] == pytest.approx(digits, abs=1e-5)
    assert found["size"] == pytest.approx(expected["size"] * np.array(SIZE.std) + np.array(SIZE.mean), abs=1e-4)


NORMS = {**CNN, "batch_norm": True, "dropout": 0.5}


def with_norms() -> Network:
    whole, rng = network([DIGIT], 0, NORMS, PICTURE), np.random.default_rng(3)
    drawn = {
        name: [(array + rng.uniform(0.01, 0.3, array.shape)).astype(np.float32) for array in arrays]
        for name, arrays in whole.weights.items()
    }
    whole.weights.update(drawn)
    return whole


@pytest.mark.parametrize("shape", [[8, 8, 1], [30, 20, 3]])
def test_behind_adapting_layers_norms_and_dropout_know_training_from_inference(shape: list[int]) -> None:
    """Called without `training`, keras.layers.Resizing would have BatchNorm answer by the batch."""
    other = fed(with_norms(), shape)
    rows = np.random.default_rng(4).integers(0, 256, (6, *shape)).astype(np.float32)
    model = export.inference_model(other)
    predicted = model.predict_on_batch(rows)["digit"]
    for answers in (model(rows), model(rows, training=False), model(rows[:1]), model.predict(rows, verbose=0)):
        assert np.asarray(answers["digit"]) == pytest.approx(predicted[: len(answers["digit"])], abs=1e-6)
    keras_layers = build.keras_layers(other)
    keras_layers.forward(other.scaling(rows), training=True)
    assert not same(
        {"norm": keras_layers.read()["norm1"][2:]}, {"norm": other.weights["norm1"][2:]}
    )  # its statistics have moved


@pytest.mark.slow
@pytest.mark.parametrize("shape", [[27, 31, 3], [8, 8, 3], [12, 12, 3], [5, 30, 1]])
def test_every_export_answers_as_keras_does(shape: list[int], tmp_path: Path) -> None:
    from tests.worker.training.kept.installed import INSTALLED

    other = fed(with_norms(), shape)
    rows = np.random.default_rng(2).integers(0, 256, (9, *shape)).astype(np.uint8)
    told = formats.write(other, ["keras", *INSTALLED], rows, tmp_path)  # type: ignore[list-item]
    assert set(told) == set(INSTALLED)
    assert max(one["largest_difference"] for one in told.values()) <= 1e-5


@pytest.mark.slow
def test_every_export_also_to_three_channels(tmp_path: Path) -> None:
    from tests.worker.training.kept.installed import INSTALLED

    whole = network([DIGIT], 0, CNN, PICTURE.model_copy(update={"shape": [12, 12, 3]}))
    rows = np.random.default_rng(2).integers(0, 256, (9, 30, 8, 1)).astype(np.uint8)
    told = formats.write(fed(whole, [30, 8, 1]), INSTALLED, rows, tmp_path)  # type: ignore[arg-type]
    assert max(one["largest_difference"] for one in told.values()) <= 1e-5


def test_a_task_may_not_bear_the_name_of_an_adapting_layer() -> None:
    from worker.training.tasks.names import task_name

    whole = network([DIGIT], 0, CNN, PICTURE)
    for shape in ([30, 8, 3], [8, 8, 1]):
        own = {layer.name for layer in export.inference_model(whole).layers}
        names = {operation.name for operation in export.inference_model(fed(whole, shape)).operations} - own
        assert names
        assert all(task_name(name) == f"{name}_task" for name in names)
