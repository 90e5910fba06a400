"""A kept model fills gaps and lays out categories itself, as training did, in stock layers of Keras."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.data import inputs as input_kinds
from app.spec.models import Manifest
from tests import plain_keras
from tests.worker.training import mixed, small
from tests.worker.training.kept.installed import INSTALLED
from worker.training.data import inputs
from worker.training.kept import export, formats
from worker.training.networks import build
from worker.training.networks.inheritance import inherit
from worker.training.networks.initial import initial
from worker.training.networks.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture(scope="module")
def whole() -> Network:
    data = mixed.of_table(mixed.table())
    made = mixed.network(data, inputs.scaling([(data, data.subset(0).train)]))
    made.weights = initial(build.keras_layers(made), 0)
    return made


@pytest.fixture(scope="module")
def rows(whole: Network) -> np.ndarray:
    """All rows of the table; some without anything, and some with a word that no row had."""
    given = np.concatenate([mixed.table().inputs[:], np.full((3, len(whole.input.features)), np.nan, np.float32)])
    city = next(at for at, feature in enumerate(whole.input.features) if feature.column == "city")
    given[::7, city] = len(whole.input.features[city].classes or ())
    return given


def kept(whole: Network, path: Path) -> tuple[Any, Network]:
    sha256 = export.write(whole, path)
    about = export.manifest(whole, "model", sha256, file=path.name, rows_file=None, dataset={}, training={})
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return model, export.read(path, Manifest.model_validate_json(about.model_dump_json()))


def test_it_answers_as_training_prepared_its_rows(whole: Network, rows: np.ndarray, tmp_path: Path) -> None:
    model, again = kept(whole, tmp_path / "model.keras")
    scaled = keras.Model(model.inputs, model.get_layer("preprocessing").output)
    found = scaled.predict_on_batch(rows)
    assert found.shape[1:] == tuple(input_kinds.prepared_shape(whole.input)) == tuple(whole.trunk_shape)
    assert np.abs(found - whole.scaling(rows)).max() <= 1e-6
    logits = build.keras_layers(whole).forward.predict_on_batch(whole.scaling(rows))["y"]
    expected = {"y": 1 / (1 + np.exp(-logits))}
    assert np.abs(model.predict_on_batch(rows)["y"] - expected["y"]).max() <= 1e-6
    export.check(tmp_path / "model.keras", whole, rows, expected)
    assert again.scaling == replace(whole.scaling, std=again.scaling.std, mean=again.scaling.mean)
    assert np.allclose(again.scaling.std, whole.scaling.std, rtol=1e-7)
    assert again.scaling.mean == whole.scaling.mean
    assert small.same(again.weights, whole.weights)
    assert again.trace == whole.trace


def test_it_is_made_of_stock_layers_and_operations_alone(whole: Network, tmp_path: Path) -> None:
    export.write(whole, tmp_path / "model.keras")
    config = json.loads(zipfile.ZipFile(tmp_path / "model.keras").read("config.json"))
    layers = config["config"]["layers"]
    assert {layer["module"].partition(".")[0] for layer in layers} == {"keras"}
    assert all(layer["registered_name"] in (None, layer["class_name"]) for layer in layers)


def test_gaps_alone_and_categories_alone_are_prepared_too(tmp_path: Path) -> None:
    for names in (("size", "age", "y"), ("colour", "city", "y"), ("job", "y")):
        columns = {name: values for name, values in mixed.cells().items() if name in names}
        data = mixed.of_table(mixed.table(columns))
        made = mixed.network(data, inputs.scaling([(data, data.subset(0).train)]))
        made.weights = initial(build.keras_layers(made), 0)
        model, again = kept(made, tmp_path / "model.keras")
        scaled = keras.Model(model.inputs, model.get_layer("preprocessing").output)
        assert np.abs(scaled.predict_on_batch(data.table.inputs[:]) - made.scaling(data.table.inputs[:])).max() <= 1e-6
        assert again.scaling.preparation == made.scaling.preparation


def test_a_table_of_plain_numbers_has_the_one_layer_that_it_always_had(tmp_path: Path) -> None:
    plain = small.network([small.ODD])
    model, again = kept(plain, tmp_path / "model.keras")
    assert [layer.name for layer in model.layers if layer.name.startswith(("input", "preprocessing"))] == [
        "input",
        "preprocessing",
    ]
    assert again.scaling == plain.scaling


def test_a_copied_trunk_goes_on_with_its_source_s_preparation(whole: Network) -> None:
    data = mixed.of_table(mixed.table())
    other = mixed.network(data, inputs.scaling([(data, np.arange(50))]))
    other.weights = initial(build.keras_layers(other), 1)
    assert other.scaling != whole.scaling
    assert inherit(other, whole).network.scaling == whole.scaling


@pytest.mark.slow
def test_every_format_fills_gaps_and_lays_out_categories(whole: Network, rows: np.ndarray, tmp_path: Path) -> None:
    told = formats.write(whole, INSTALLED, rows, tmp_path)  # type: ignore[arg-type]
    assert set(told) == set(INSTALLED)
    assert max(about["largest_difference"] for about in told.values()) <= 1e-5


JAX = """
import sys
import keras
import numpy as np
model = keras.saving.load_model(sys.argv[1], compile=False, safe_mode=True)
assert keras.backend.backend() == "jax"
scaled = keras.Model(model.inputs, model.get_layer("preprocessing").output)
np.save(sys.argv[3], scaled.predict_on_batch(np.load(sys.argv[2])))
"""


@pytest.mark.slow
@plain_keras.needs_jax
def test_it_answers_alike_on_jax(whole: Network, rows: np.ndarray, tmp_path: Path) -> None:
    kept(whole, tmp_path / "model.keras")
    np.save(tmp_path / "rows.npy", rows)
    plain_keras.run(JAX, tmp_path, "model.keras", "rows.npy", "answers.npy", backend="jax")
    assert np.abs(np.load(tmp_path / "answers.npy") - whole.scaling(rows)).max() <= 1e-6
