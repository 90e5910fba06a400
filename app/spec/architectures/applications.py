"""Well-known convolutional networks of keras.applications without their tops, each with its own preprocessing; for one name a width.

"applications:MobileNetV2" is short for {"arch": "applications", "name": "MobileNetV2"}. The trunk sees three channels, in `size` or
as the data has it, at least the network's own minimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from app.spec.architectures._base import Architecture, Shape
from app.spec.data import InputSchema

ApplicationName = Literal["MobileNetV2", "EfficientNetV2B0", "ResNet50V2", "DenseNet121", "Xception"]
NAMES: tuple[ApplicationName, ...] = get_args(ApplicationName)
PREFIX = "applications:"

LARGEST = 1024

Side = Annotated[int, Field(ge=1, le=LARGEST)]
Size = Annotated[list[Side], Field(min_length=2, max_length=2)]


@dataclass(frozen=True)
class Application:
    """The facts of one network that a spec needs.

    `widths`: the alphas that it may have. `least`: the smallest height and width. `scale`, `offset`: pixels of 0…1 become
    pixel · scale + offset, as the network's own preprocessing makes them of pixels of 0…255. `file`: as Keras calls the file of its
    ImageNet weights without the top.
    """

    widths: tuple[float, ...]
    least: int
    scale: float | tuple[float, float, float]
    offset: float | tuple[float, float, float]
    file: str


# What the weights were trained with: mean and deviation of ImageNet's pixels, by channel.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

APPLICATIONS: Mapping[ApplicationName, Application] = {
    "MobileNetV2": Application(
        (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
        32,
        2.0,
        -1.0,
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{rows}_no_top.h5",
    ),
    "EfficientNetV2B0": Application(
        (1.0,),
        32,
        (1 / _STD[0], 1 / _STD[1], 1 / _STD[2]),
        (-_MEAN[0] / _STD[0], -_MEAN[1] / _STD[1], -_MEAN[2] / _STD[2]),
        "efficientnetv2-b0_notop.h5",
    ),
    "ResNet50V2": Application(
        (1.0,),
        32,
        2.0,
        -1.0,
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "DenseNet121": Application(
        (1.0,),
        32,
        (1 / _STD[0], 1 / _STD[1], 1 / _STD[2]),
        (-_MEAN[0] / _STD[0], -_MEAN[1] / _STD[1], -_MEAN[2] / _STD[2]),
        "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "Xception": Application(
        (1.0,),
        71,
        2.0,
        -1.0,
        "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
}

_SIZES_OF_MOBILENET = (96, 128, 160, 192, 224)
"""The sizes that have published ImageNet weights; Keras takes the last for any other size."""


class Spec(Architecture):
    inputs: ClassVar[str] = "image"
    arch: Literal["applications"] = "applications"
    name: ApplicationName = "MobileNetV2"
    alpha: float = Field(1.0, description="width; other than 1 for MobileNetV2 only: 0.35, 0.5, 0.75, 1.3 or 1.4")
    size: Size | None = Field(
        None, description="[height, width] that it sees; null: the data's, or its smallest if larger"
    )

    @field_validator("alpha")
    @classmethod
    def _check_alpha(cls, alpha: float, info: ValidationInfo) -> float:
        if "name" in info.data and alpha not in APPLICATIONS[info.data["name"]].widths:
            widths = ", ".join(f"{width:g}" for width in APPLICATIONS[info.data["name"]].widths)
            raise ValueError(f"{info.data['name']} has widths {widths}")
        return alpha

    @field_validator("size")
    @classmethod
    def _large_enough(cls, size: list[int] | None, info: ValidationInfo) -> list[int] | None:
        if size is not None and "name" in info.data and min(size) < APPLICATIONS[info.data["name"]].least:
            raise ValueError(
                f"{info.data['name']} needs at least {APPLICATIONS[info.data['name']].least} pixels a side"
            )
        return size

    @property
    def label(self) -> str:
        return self.name

    @property
    def known_shape(self) -> Shape | None:
        return None if self.size is None else (*self.size, 3)

    @property
    def pixels(self) -> str:
        return "-1..1" if APPLICATIONS[self.name].offset == -1.0 else "imagenet"

    def trunk_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            return shape
        if shape[-1] not in (1, 3):
            raise ValueError(f"{self.name} sees three channels, of one or three of the data; it has {shape[-1]}")
        height, width = self.size or [max(side, APPLICATIONS[self.name].least) for side in shape[:2]]
        return (height, width, 3)

    def fitted(self, shape: Shape, input: InputSchema | None = None) -> Spec:  # noqa: ARG002
        return self.model_copy(update={"size": list(self.trunk_shape(shape)[:2])}) if len(shape) == 3 else self


def imagenet_file(architecture: Spec) -> str:
    """Keras's name for the file of an application's ImageNet weights at the architecture's width and size."""
    height, width = architecture.size or (0, 0)
    rows = height if height == width and height in _SIZES_OF_MOBILENET else _SIZES_OF_MOBILENET[-1]
    return APPLICATIONS[architecture.name].file.format(alpha=float(architecture.alpha), rows=rows)


EXAMPLE = {"arch": "applications", "name": "MobileNetV2", "alpha": 0.35, "size": [32, 32]}
