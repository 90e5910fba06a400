"""Model folders of Hugging Face become networks that answer as transformers does: `hugging_face.json` has its answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.model_files import adopt, upload
from app.pretrained.hugging_face import conversion
from app.spec.adopted import Order
from app.spec.imports import ImportOptions, Origin
from app.spec.models import Manifest
from tests.app.pretrained import folders, hf_numbers, published
from worker.training.kept import imported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Array = np.ndarray


def kept(content: bytes, folder: Path, **options: Any) -> tuple[Manifest, Any]:
    """What the service keeps of an archive, and the file opened by Keras alone."""
    raw, network, arrays, out = (folder / name for name in ("raw", "network.zip", "arrays.npz", "model.keras"))
    raw.write_bytes(content)
    with pytest.raises(upload.OfFolder):
        upload.read_model(raw, arrays)
    conversion.convert(raw, network)
    read = upload.read_model(network, arrays)
    graph, tokenizer = read.judged()
    reading = adopt.adopt(graph, read.outputs, read.said.under(ImportOptions(**options)), None)
    beside = folder / "tokenizer.json"
    beside.write_text(tokenizer or "")
    order = Order(
        candidates=reading.candidates,
        arrays=str(arrays),
        out=str(out),
        origin=Origin(file="x", sha256="0", bytes=1, notes=read.notes, licence=read.said.licence),
        tokenizer=None if tokenizer is None else str(beside),
    )
    return imported.write(order), keras.saving.load_model(out)


def answers(model: Any, rows: Array) -> Array:
    told = model.predict(rows, verbose=0)
    return np.asarray(next(iter(told.values())) if isinstance(told, dict) else told)


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


ANSWERS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "bert": ("mean", np.asarray),
    "bert-classes": ("logits", softmax),
    "bert-labels": ("logits", lambda logits: 1 / (1 + np.exp(-logits))),
    "bert-number": ("logits", np.asarray),
    "bert-masked": ("mean", np.asarray),
    "distilbert": ("mean", np.asarray),
    "distilbert-classes": ("logits", lambda logits: softmax(logits)[:, 1:]),
    "vit": ("features", np.asarray),
    "vit-classes": ("logits", softmax),
    "resnet": ("features", np.asarray),
    "resnet-classes": ("logits", lambda logits: softmax(logits)[:, 1:]),
    "resnet-early": ("features", np.asarray),
}
"""What a kept model's answer is of transformers' own; of two classes it is the second one's probability."""


@pytest.mark.parametrize("name", ANSWERS)
def test_it_answers_as_transformers_does(name: str, tmp_path: Path) -> None:
    expected, config = (folders.told()[name][part] for part in ("expected", "config"))
    manifest, model = kept(folders.zipped(folders.parts(name)), tmp_path)
    of_text = config["model_type"] in ("bert", "distilbert")
    rows = hf_numbers.ids() if of_text else hf_numbers.pictures()
    key, answer = ANSWERS[name]
    np.testing.assert_allclose(answers(model, rows), answer(np.array(expected[key])), atol=3e-6)
    assert (manifest.input.kind, bool(manifest.tasks)) == ("text" if of_text else "image", key == "logits")
    if "classes" in name:
        (head,) = manifest.tasks.values()
        assert head.classes == list(config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"}).values())


def test_every_network_of_the_oracle_is_asked() -> None:
    assert ANSWERS.keys() == folders.told().keys()


@pytest.mark.parametrize("pooling", [{"pooling_mode_cls_token": True}, {"pooling_mode": "cls"}], ids=["older", "newer"])
def test_sentences_are_pooled_as_their_makers_say(pooling: dict[str, Any], tmp_path: Path) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Normalize")]
    said = {"modules.json": json.dumps(modules).encode(), "1_Pooling/config.json": json.dumps(pooling).encode()}
    _, model = kept(folders.zipped(folders.parts("bert") | said), tmp_path)
    first = np.array(folders.told()["bert"]["expected"]["cls"])
    unit = first / np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(answers(model, hf_numbers.ids()), unit, atol=3e-6)


def test_another_activation_is_another_network(tmp_path: Path) -> None:
    """The tanh form of GELU (Hendrycks and Gimpel 2016, section 2), in NumPy, layer by layer."""
    name, arrays = "vit", folders.arrays("vit")
    config = folders.told()[name]["config"] | {"hidden_act": "gelu_new"}
    parts = folders.parts(name) | {"config.json": json.dumps(config).encode()}
    _, model = kept(folders.zipped(parts), tmp_path)
    np.testing.assert_allclose(answers(model, hf_numbers.pictures()), vit(arrays), atol=3e-6)


def vit(arrays: dict[str, Array]) -> Array:
    """Dosovitskiy et al. 2021, equations 1 to 4, of 16 patches of 8×8 pixels and 4 heads of 4 numbers."""

    def dense(x: Array, name: str) -> Array:
        return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    pixels = hf_numbers.pictures() / 127.5 - 1
    patches = pixels.reshape(2, 4, 8, 4, 8, 3).transpose(0, 1, 3, 5, 2, 4).reshape(2, 16, -1)
    at = "embeddings.patch_embeddings.projection"
    x = patches @ arrays[f"{at}.weight"].reshape(16, -1).T + arrays[f"{at}.bias"]
    x = np.concatenate([np.repeat(arrays["embeddings.cls_token"], 2, axis=0), x], axis=1)
    x = x + arrays["embeddings.position_embeddings"]
    for number in range(2):
        at = f"encoder.layer.{number}"
        normed = norm(x, f"{at}.layernorm_before")
        query, key, value = (
            dense(normed, f"{at}.attention.attention.{part}").reshape(2, 17, 4, 4) for part in ("query", "key", "value")
        )
        scores = np.einsum("bqhd,bkhd->bhqk", query, key) / 2
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        attended = np.einsum("bhqk,bkhd->bqhd", weights, value).reshape(2, 17, 16)
        x = x + dense(attended, f"{at}.attention.output.dense")
        wide = dense(norm(x, f"{at}.layernorm_after"), f"{at}.intermediate.dense")
        wide = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
        x = x + dense(wide, f"{at}.output.dense")
    return norm(x, "layernorm")[:, 0]


def test_pixels_of_another_scale_and_size(tmp_path: Path) -> None:
    """A ResNet on grey pictures of 40×24, whose pixels its folder leaves open."""
    parts = folders.parts("resnet")
    del parts["preprocessor_config.json"]
    shapes = folders.told()["resnet"]["arrays"]
    kernel = "embedder.embedder.convolution.weight"
    arrays = folders.arrays("resnet") | {kernel: hf_numbers.array(kernel, [shapes[kernel][0], 1, 7, 7])}
    config = folders.told()["resnet"]["config"] | {"num_channels": 1}
    parts |= {"config.json": json.dumps(config).encode(), "model.safetensors": published.safetensors(arrays)}
    raw, network = tmp_path / "raw", tmp_path / "network.zip"
    raw.write_bytes(folders.zipped(parts))
    conversion.convert(raw, network, size=(40, 24))
    read = upload.read_model(network, tmp_path / "arrays.npz")
    assert read.said.scale is None
    assert read.graph["given"][0]["shape"] == [40, 24, 1]
    read.judged()
