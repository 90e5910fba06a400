"""Tiny model folders of Hugging Face: what transformers writes of them and answers (`hugging_face.json`), with numbers by rule."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np

from app.data import wordpiece
from tests.app.pretrained import hf_numbers, published

Parts = dict[str, bytes]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ascii_lowercase, *"0123456", "##h", "7"]
"""A token for each of `hf_numbers.WORDS`, so that the oracle's rows are those of texts: no row begins with what goes on with a word."""

PIXELS = {
    "vit": {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": 32, "width": 32},
        "image_processor_type": "ViTImageProcessor",
    },
    "resnet": {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "size": {"shortest_edge": 32},
        "image_processor_type": "ConvNextImageProcessor",
    },
}


@cache
def told() -> dict[str, dict[str, Any]]:
    """Of each model `config`, `arrays` (name: shape) and `expected`, as transformers has them."""
    models: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "hugging_face.json").read_text())["models"]
    return models


def arrays(name: str) -> dict[str, np.ndarray]:
    return {key: hf_numbers.array(key, shape) for key, shape in told()[name]["arrays"].items()}


def parts(name: str) -> Parts:
    """The folder's files by name."""
    config = told()[name]["config"]
    made = {"config.json": json.dumps(config).encode(), "model.safetensors": published.safetensors(arrays(name))}
    if config["model_type"] in PIXELS:
        return made | {"preprocessor_config.json": json.dumps(PIXELS[config["model_type"]]).encode()}
    tokenizer = json.loads(wordpiece.tokenizer(VOCABULARY, lowercase=True))
    tokenizer["truncation"] = {"max_length": hf_numbers.LENGTH}
    return made | {"tokenizer.json": json.dumps(tokenizer).encode()}


def zipped(made: Mapping[str, bytes], above: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in made.items():
            archive.writestr(above + name, content)
    return file.getvalue()


def tarred(made: Mapping[str, bytes], above: str = "", mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in made.items():
            about = tarfile.TarInfo(above + name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return file.getvalue()
