"""Tiny folders of models, for the process that reads a client's to read before it confines itself."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from app.model_files.archive import CONFIG
from app.pretrained.drawing import Array
from app.pretrained.hugging_face.folder import ARRAYS


def archives() -> Iterator[bytes]:
    """A network on texts as a zip, one on pictures as a packed tar, and damaged ones."""
    text, image = _zip(_distilbert()), _tar(_resnet())
    yield from (text, image, text[:-8], image[:-8], text.replace(b"PK\1\2", b"PK\1\3"))


def _zip(parts: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def _tar(parts: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in parts.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return file.getvalue()


def _safetensors(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    header, data = {}, b""
    for name, shape in shapes.items():
        values: Array = np.zeros(shape, np.float32)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _with_bias(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _distilbert() -> dict[str, bytes]:
    at = "transformer.layer.0"
    shapes = _with_bias("embeddings.LayerNorm", 2)
    shapes |= {"embeddings.word_embeddings.weight": (5, 2), "embeddings.position_embeddings.weight": (4, 2)}
    for name in ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"):
        shapes |= _with_bias(f"{at}.{name}", 2, 2)
    shapes |= _with_bias(f"{at}.sa_layer_norm", 2) | _with_bias(f"{at}.output_layer_norm", 2)
    return {
        CONFIG: json.dumps({"model_type": "distilbert", "n_heads": 1}).encode(),
        ARRAYS: _safetensors(shapes),
        "vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n\xc3\xa4\n",
        "README.md": b"---\nlicense: mit\n---\n",
    }


def _resnet() -> dict[str, bytes]:
    shapes = dict[str, tuple[int, ...]]()
    parts = {"embedder.embedder": (2, 3, 7, 7)}
    parts |= {f"encoder.stages.0.layers.0.layer.{number}": (2, 2, 3, 3) for number in (0, 1)}
    for name, shape in parts.items():
        norms = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{name}.convolution.weight": shape} | {f"{name}.normalization.{norm}": (2,) for norm in norms}
    return {
        CONFIG: json.dumps({"model_type": "resnet", "layer_type": "basic"}).encode(),
        ARRAYS: _safetensors(shapes),
        "preprocessor_config.json": b'{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 32}',
    }
