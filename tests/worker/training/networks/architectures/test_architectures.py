"""resnet, wrn and vit-tiny: the papers' counts, and their forward passes once more in NumPy, straight from the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.spec import architectures, exports
from app.spec.data import InputSchema
from app.spec.models import Manifest
from tests.worker.training.small import DIGIT, network, same
from worker.training.kept import export, formats
from worker.training.networks import build, trunk
from worker.training.networks.network import Network
from worker.training.tasks import heads

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

Array = np.ndarray

TINY: dict[str, Any] = {
    "resnet": {"arch": "resnet", "depth": 8},
    "wrn": {"arch": "wrn", "depth": 10, "widen": 2},
    "vit-tiny": {"arch": "vit-tiny", "patch": 2, "dim": 8, "depth": 2, "heads": 2, "mlp_ratio": 2},
}
COLOUR = InputSchema(kind="image", shape=[8, 6, 3], scale=255.0)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet-20", 0.27),
        ("resnet-32", 0.46),
        ("resnet-44", 0.66),
        ("resnet-56", 0.85),
        ("wrn-16-1", 0.18),
        ("wrn-16-2", 0.69),
        ("wrn-40-1", 0.56),
        ("wrn-40-2", 2.24),
        ("wrn-40-4", 8.95),
    ],
)
def test_learnt_numbers_on_ten_classes_of_colour_pictures_are_the_papers(name: str, millions: float) -> None:
    """He et al. 2016, table 6; Zagoruyko and Komodakis 2016, table 4, and the two small ones as the authors' code counts them."""
    trace = trunk.trace(architectures.resolve(name), (32, 32, 3))
    statistics = sum(layer.parameters // 2 for layer in trace.layers if layer.kind == "BatchNormalization")
    count = trace.parameters - statistics + (trace.features_shape[0] + 1) * 10
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


def test_deit_ti_has_its_parameters_but_for_the_class_token() -> None:
    """5,717,416 with a head of 1,000 classes (Touvron et al. 2021, table 1: 5 M): less the token, its place and the patches' bias."""
    trace = trunk.trace(architectures.resolve({"arch": "vit-tiny", "patch": 16}), (224, 224, 3))
    assert trace.parameters + 193 * 1000 == 5_717_416 - 3 * 192


# --- forward passes


def convolved(x: Array, kernel: Array, strides: int = 1) -> Array:
    """A convolution without bias, padded as TensorFlow pads."""
    sides = [-(-side // strides) for side in x.shape[1:3]]
    pads = [
        max((n - 1) * strides + k - side, 0) for n, k, side in zip(sides, kernel.shape[:2], x.shape[1:3], strict=True)
    ]
    x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)])
    out = np.zeros((len(x), *sides, kernel.shape[3]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            rows = x[:, i : i + strides * sides[0] : strides, j : j + strides * sides[1] : strides]
            out += rows[:, : sides[0], : sides[1]] @ kernel[i, j]
    return out


def normed(x: Array, arrays: list[Array]) -> Array:
    gamma, beta, mean, variance = arrays
    return np.asarray((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def resnet(w: dict[str, list[Array]], x: Array) -> Array:
    """Option A: identity skips, every second pixel, zeros for further channels."""
    x = relu(normed(convolved(x, w["conv1"][0]), w["norm1"]))
    for stage in (1, 2, 3):
        name, strides = f"stage{stage}-block1", 1 if stage == 1 else 2
        y = relu(normed(convolved(x, w[f"{name}-conv1"][0], strides), w[f"{name}-norm1"]))
        y = normed(convolved(y, w[f"{name}-conv2"][0]), w[f"{name}-norm2"])
        skip = np.zeros_like(y)
        before = (y.shape[-1] - x.shape[-1]) // 2
        skip[..., before : before + x.shape[-1]] = x[:, ::strides, ::strides]
        x = relu(y + skip)
    return np.asarray(x.mean(axis=(1, 2)))


def wrn(w: dict[str, list[Array]], x: Array) -> Array:
    x = convolved(x, w["conv1"][0])
    for group in (1, 2, 3):
        name, strides = f"group{group}-block1", 1 if group == 1 else 2
        active = relu(normed(x, w[f"{name}-norm1"]))
        y = convolved(active, w[f"{name}-conv1"][0], strides)
        y = convolved(relu(normed(y, w[f"{name}-norm2"])), w[f"{name}-conv2"][0])
        x = y + convolved(active, w[f"{name}-skip"][0], strides)
    return np.asarray(relu(normed(x, w["norm1"])).mean(axis=(1, 2)))


def vit(w: dict[str, list[Array]], x: Array) -> Array:
    """Patch by patch, head by head."""
    from scipy.special import erf, softmax

    def layer_norm(z: Array, arrays: list[Array]) -> Array:
        centred = z - z.mean(-1, keepdims=True)
        return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * arrays[0] + arrays[1])

    kernel, places = w["patch-embedding"]
    patches = [x[:, i : i + 2, j : j + 2].reshape(len(x), -1) for i in range(0, 8, 2) for j in range(0, 6, 2)]
    z = np.stack(patches, axis=1) @ kernel + places
    for number in (1, 2):
        name = f"encoder{number}"
        y = layer_norm(z, w[f"{name}-norm1"])
        wq, bq, wk, bk, wv, bv, wo, bo = w[f"{name}-attention"]
        mixed = np.zeros_like(z) + bo
        for head in range(2):
            q, k, v = (y @ m[:, head] + b[head] for m, b in ((wq, bq), (wk, bk), (wv, bv)))
            mixed += softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]), axis=-1) @ v @ wo[head]
        z = z + mixed
        y = layer_norm(z, w[f"{name}-norm2"]) @ w[f"{name}-dense1"][0] + w[f"{name}-dense1"][1]
        z = z + (y * (1 + erf(y / np.sqrt(2))) / 2) @ w[f"{name}-dense2"][0] + w[f"{name}-dense2"][1]
    return np.asarray(layer_norm(z, w["encoder-norm"]).mean(axis=1))


NAIVE = {"resnet": resnet, "wrn": wrn, "vit-tiny": vit}


def disturbed(whole: Network) -> Network:
    """With norms, biases and places that are not as they begin."""
    rng = np.random.default_rng(5)
    for arrays in whole.weights.values():
        arrays[:] = [array + rng.uniform(0, 0.2, array.shape).astype(np.float32) for array in arrays]
    return whole


@pytest.mark.parametrize("name", list(TINY))
def test_it_computes_what_its_paper_says(name: str) -> None:
    whole = disturbed(network([DIGIT], 1, TINY[name], COLOUR))
    x = np.random.default_rng(2).uniform(0, 1, (3, 8, 6, 3)).astype(np.float32)
    weights = {layer: [array.astype(np.float64) for array in arrays] for layer, arrays in whole.weights.items()}
    expected = NAIVE[name](weights, x.astype(np.float64))
    found = np.asarray(build.keras_layers(whole).body.predict_on_batch(x))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


# --- kept, exported


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TINY))
def test_it_is_kept_in_stock_layers_read_back_and_exported_in_every_format(name: str, tmp_path: Path) -> None:
    whole = disturbed(network([DIGIT], 1, TINY[name], COLOUR))
    sha = export.write(whole, tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert all(type(layer).__module__.startswith("keras.src.") for layer in model.layers)
    about = export.manifest(whole, "model", sha, file="model.keras", rows_file=None, dataset={}, training={})
    again = export.read(tmp_path / "model.keras", Manifest.model_validate_json(about.model_dump_json()))
    assert same(again.weights, whole.weights)
    rows = np.random.default_rng(2).integers(0, 256, (5, 8, 6, 3)).astype(np.uint8)
    logits = build.keras_layers(again).forward.predict_on_batch(again.scaling(rows))["digit"]
    export.check(tmp_path / "model.keras", whole, rows, {"digit": heads.answers(DIGIT, np.asarray(logits))})
    plain = (kind for kind in exports.FILES if kind not in exports.QUANTIZED)
    wanted = [kind for kind in plain if exports.unavailable(kind) is None]
    told = formats.write(whole, wanted, rows, tmp_path)
    assert set(told) == set(wanted) - {"keras"}
    assert all(one["largest_difference"] <= 1e-4 for one in told.values())
