"""Warm models: their answers are the model's own whoever asks beside, few programs are made of each, and none outlives its model."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.data import builtins
from app.settings import settings
from app.spec.data import InputSchema
from app.spec.models import TaskSpec
from tests import plain_keras
from tests.worker.training import small
from worker import warm_models
from worker.training.kept import export
from worker.training.networks.network import Network
from worker.training.tasks import heads
from worker.warm_models import PredictionRefused, TooLarge, WarmModel, WarmModels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TEXT = InputSchema(kind="text", shape=[16])
CNN = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True}


def boxes() -> Network:
    schema = builtins.schema("shapes")
    task = heads.task("things", TaskSpec(), schema.columns["boxes"])
    return small.network([task], 0, "cnn-small", schema.input)


NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: small.network([small.DIGIT, small.SIZE]),
    "table-resnet": lambda: small.network([small.SIGNS], 0, "table-resnet-small"),
    "cnn": lambda: small.network([small.DIGIT], 0, CNN, small.PICTURE),
    "text-encoder": lambda: small.network([small.DIGIT, small.ODD], 0, "text-encoder-small", TEXT),
    "boxes": boxes,
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings(), "data", tmp_path)
    (settings().store / "model").mkdir(parents=True)
    return settings().store / "model"


def some_rows(model: Any, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 120, (n, *model.inputs[0].shape[1:])).astype(np.float32)


def farthest(found: Any, wanted: Any) -> float:
    assert set(found) == set(wanted)
    return max(float(np.abs(found[name] - np.asarray(wanted[name])).max()) for name in wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_the_models_own_whatever_rows_stand_beside(store: Path, name: str) -> None:
    path = store / "kept.keras"
    export.write(NETWORKS[name](), path)
    plain, warm = keras.saving.load_model(path, compile=False), WarmModels()
    rows = some_rows(plain, 300)
    wanted = plain(rows, training=False)
    largest = max(1.0, *(float(np.abs(answer).max()) for answer in wanted.values()))
    for n in (1, 3, 5, 64, 300):
        found = warm.predict(path, rows[:n])
        assert farthest(found, {task: answer[:n] for task, answer in wanted.items()}) <= 1e-6 * largest
    strange = np.concatenate([rows[7:8], np.full_like(rows[:2], 255)])
    assert farthest({task: answer[:1] for task, answer in warm.predict(path, strange).items()}, warm.predict(path, rows[7:8])) <= (
        1e-6 * largest
    )  # fmt: skip


class Traced:
    """A model that notes how many rows it is traced with. None: any number."""

    def __init__(self, model: Any) -> None:
        self._model, self.inputs, self.sizes = model, model.inputs, list[int | None]()

    def __call__(self, rows: Any, training: bool) -> Any:
        self.sizes.append(rows.shape[0])
        return self._model(rows, training=training)


def dense() -> Any:
    given = keras.Input((3,))
    return keras.Model(given, {"y": keras.layers.Dense(2)(given)})


def test_a_model_is_traced_once_for_any_number_of_rows() -> None:
    traced = Traced(dense())
    model = WarmModel(traced, None)
    for n in (1, 2, 3, 100, 256):
        assert model(np.ones((n, 3), np.float32))["y"].shape == (n, 2)
    assert traced.sizes == [None]


ON_JAX = """
import keras, numpy as np
from worker.warm_models import WarmModel
given = keras.Input((6, 6, 1))
x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(given))
model = keras.Model(given, {"y": keras.layers.Dense(2)(keras.layers.Flatten()(x)), "map": x})
stateless, sizes = model.stateless_call, []
def noted(trainable, other, rows, training):
    sizes.append(rows.shape[0])
    return stateless(trainable, other, rows, training=training)
model.stateless_call = noted
warm = WarmModel(model, None)
rows = np.random.default_rng(0).standard_normal((256, 6, 6, 1)).astype("float32")
for n in (1, 2, 3, 4, 5, 8, 100, 128, 200, 256):
    found, wanted = warm(rows[:n]), model(rows[:n], training=False)
    for name in ("y", "map"):
        assert found[name].shape == wanted[name].shape
        assert np.abs(found[name] - np.asarray(wanted[name])).max() < 1e-6, (n, name)
print(keras.backend.backend(), sizes)
"""


@pytest.mark.slow
@plain_keras.needs_jax
def test_on_jax_rows_are_filled_up_to_few_sizes() -> None:
    printed = plain_keras.run(ON_JAX, plain_keras.ROOT, backend="jax")
    assert printed.strip() == "jax [1, 2, 4, 8, 128, 256]"


def test_sizes_that_rows_are_filled_up_to_are_powers_of_two() -> None:
    assert [warm_models.bucket(n) for n in (1, 2, 3, 4, 5, 129, 255, 256)] == [1, 2, 4, 4, 8, 256, 256, 256]


@pytest.mark.parametrize(
    ("shape", "most"),
    [((3,), 256), ((224, 224, 3), 4), ((2048, 2048, 1), 1)],
)
def test_fewer_rows_are_asked_at_once_where_arrays_are_large(shape: tuple[int, ...], most: int) -> None:
    given = keras.Input(shape)
    x = given if len(shape) == 1 else keras.layers.Conv2D(64, 1)(given)
    assert warm_models._rows_at_once(keras.Model(given, {"y": x})) == most


def test_the_looks_of_attention_count() -> None:
    given = keras.Input((1024, 4))
    looks = keras.layers.MultiHeadAttention(4, 1)(given, given)
    assert warm_models._rows_at_once(keras.Model(given, {"y": looks})) == 4


def written(path: Path, model: Any) -> Path:
    model.save(path)
    return path


def test_a_model_that_makes_room_takes_its_function_along(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_models, "_MOST_MODELS", 1)
    paths = [written(store / f"{number}.keras", dense()) for number in range(2)]
    kept, load = list[weakref.ref[Any]](), keras.saving.load_model

    def noted(*arguments: Any, **more: Any) -> Any:
        model = load(*arguments, **more)
        kept.append(weakref.ref(model))
        return model

    monkeypatch.setattr(keras.saving, "load_model", noted)
    warm = WarmModels()
    functions = list[weakref.ref[Any]]()
    for path in (*paths, paths[0]):
        warm.predict(path, np.ones((2, 3), np.float32))
        functions.append(weakref.ref(warm._model(path)))
    gc.collect()
    assert [ref() is None for ref in kept] == [True, True, False]
    assert [ref() is None for ref in functions] == [True, True, False]


def test_models_that_are_loaded_answer_while_a_network_is_made(store: Path) -> None:
    path, other = (written(store / f"{name}.keras", dense()) for name in ("loaded", "other"))
    warm = WarmModels()
    warm.predict(path, np.ones((1, 3), np.float32))
    with ThreadPoolExecutor(1) as thread:
        with warm._building:
            assert len(warm.predict(path, np.ones((5, 3), np.float32))["y"]) == 5
            waits = thread.submit(warm.predict, other, np.ones((1, 3), np.float32))
            assert not waits.done()
        assert len(waits.result(60)["y"]) == 1


def test_who_has_waited_long_for_another_network_is_told_and_frees_its_thread(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, warm = written(store / "cold.keras", dense()), WarmModels()
    monkeypatch.setattr(warm_models, "WAITS", 0.05)
    with warm._building, pytest.raises(TimeoutError, match="another network"):
        warm.predict(path, np.ones((1, 3), np.float32))
    assert len(warm.predict(path, np.ones((1, 3), np.float32))["y"]) == 1


def test_who_asks_beside_many_is_told_of_its_own_rows_alone(store: Path) -> None:
    given = keras.Input((3,))
    steep = written(store / "steep.keras", keras.Model(given, {"y": keras.layers.Rescaling(1000.0)(given)}))
    net = dense()
    flat, numbers = written(store / "flat.keras", net), [np.asarray(weight) for weight in net.get_weights()]
    warm, together = WarmModels(), threading.Barrier(32, timeout=60)

    def ask(number: int) -> str:
        chance = np.random.default_rng(number)
        rows = chance.random((int(chance.choice([1, 2, 17, 300])), 3), np.float32)
        together.wait()
        if number % 8 == 0:
            rows[-1] = 3e38
            with pytest.raises(TooLarge) as refused:
                warm.predict(steep, rows)
            assert refused.value.rows == [len(rows) - 1]
            return "overflows"
        if number % 8 == 1:
            with pytest.raises(PredictionRefused, match="expected rows of shape"):
                warm.predict(steep, rows[:, :2])
            return "refused"
        path, wanted = (steep, 1000 * rows) if number % 2 else (flat, rows @ numbers[0] + numbers[1])
        np.testing.assert_allclose(warm.predict(path, rows)["y"], wanted, rtol=1e-5, atol=1e-5)
        return "answered"

    with ThreadPoolExecutor(32) as threads:
        outcomes = list(threads.map(ask, range(96)))
    assert [outcomes.count(one) for one in ("overflows", "refused", "answered")] == [12, 12, 72]
