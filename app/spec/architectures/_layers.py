"""Layers as data: kinds, shapes, parameters.

`worker/training/networks/layers.py` makes Keras layers of the same names from them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, Literal

from app.spec.base import Words
from app.spec.registry import modules

LayerKind = Literal[
    "conv2d",
    "max_pool2d",
    "flatten",
    "global_average_pool2d",
    "dense",
    "batch_norm",
    "dropout",
    "activation",
    "rescaling",
    "application",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a trunk. `options` by kind:

    conv2d: filters, kernel (3), strides (1), padding ("valid" | "same"), activation, use_bias · max_pool2d: pool (2) ·
    dense: units, activation · dropout: rate · activation: activation · batch_norm, flatten, global_average_pool2d: none ·
    rescaling: scale, offset, of the whole or of each channel · application: name, alpha, size, features, parameters
    """

    name: str
    kind: LayerKind
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Traced:
    """A layer with the shape that leaves it (without the batch) and how many numbers it holds, statistics included."""

    layer: Layer
    shape: Shape
    parameters: int


class Architecture(Words):
    """A trunk: everything up to the heads. `inputs` says what it takes.

    `layers` gives its layers for an input shape.
    """

    inputs: ClassVar[Literal["image", "table"]]
    arch: str

    @property
    def label(self) -> str:
        """What it is called in a sentence."""
        return self.arch

    def sees(self, shape: Shape) -> Shape:
        """The shape that the trunk sees of inputs of `shape`; of what it sees, the same.

        Raises:
            ValueError: it cannot be shown such inputs.
        """
        return shape

    def fitted(self, shape: Shape) -> Architecture:  # noqa: ARG002
        """With what depends on the inputs' shape written down. Raises ValueError as `sees`."""
        return self

    @abstractmethod
    def layers(self) -> list[Layer]:
        """In order, first to last; names are unique and stable, since weights are inherited by name."""


def trace(architecture: Architecture, input_shape: Shape) -> list[Traced]:
    """Shapes and parameters layer by layer.

    Raises:
        ValueError: the architecture does not fit this input; the message names the layer and the shape it got.
    """
    shape, traced = architecture.sees(tuple(input_shape)), []
    wanted = modules("inputs")[architecture.inputs].DIMENSIONS
    if len(shape) != wanted:
        takes = f"{architecture.arch} takes {architecture.inputs} inputs of {wanted} dimensions"
        raise ValueError(f"{takes}, the data has shape {list(shape)}")
    for layer in architecture.layers():
        before, (shape, parameters) = shape, step(layer, shape)
        if min(shape) < 1:
            depth = f"{architecture.arch} is too deep for inputs of shape {list(input_shape)}"
            raise ValueError(f"{depth}: layer {layer.name} gets {list(before)}")
        traced.append(Traced(layer, shape, parameters))
    return traced


def count_parameters(
    architecture: Architecture, input_shape: Shape, head_units: dict[str, int | tuple[int | None, int]]
) -> int:
    """All numbers of the trunk and of one dense head for each task: {task: units} or {task.

    (hidden units or None, units)}.
    """
    traced = trace(architecture, input_shape)
    width = prod(traced[-1].shape) if traced else prod(input_shape)
    total = sum(step.parameters for step in traced)
    for units in head_units.values():
        hidden, out = units if isinstance(units, tuple) else (None, units)
        total += (width + 1) * out if hidden is None else (width + 1) * hidden + (hidden + 1) * out
    return total


def step(layer: Layer, shape: Shape) -> tuple[Shape, int]:
    """What leaves `layer` where `shape` enters it, and how many numbers it then holds."""
    options = layer.options
    match layer.kind:
        case "conv2d":
            kernel, strides, same = (
                options.get("kernel", 3),
                options.get("strides", 1),
                options.get("padding", "valid") == "same",
            )
            sides = tuple(-(-side // strides) if same else (side - kernel) // strides + 1 for side in shape[:2])
            bias = 1 if options.get("use_bias", True) else 0
            return (*sides, options["filters"]), (kernel * kernel * shape[2] + bias) * options["filters"]
        case "max_pool2d":
            return (*(side // options.get("pool", 2) for side in shape[:2]), shape[2]), 0
        case "flatten":
            return (prod(shape),), 0
        case "global_average_pool2d":
            return (shape[2],), 0
        case "dense":
            return (*shape[:-1], options["units"]), (shape[-1] + 1) * options["units"]
        case "batch_norm":
            return shape, 4 * shape[-1]
        case "dropout" | "activation" | "rescaling":
            return shape, 0
        case "application":
            return (options["features"],), options["parameters"]
