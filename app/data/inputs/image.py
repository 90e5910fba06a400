"""Pictures: (height, width, channels), bytes or numbers in 0…`scale`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL

from app.data import columns
from app.data.inputs import Encode
from app.data.lists import Numbers, times
from app.data.table import Hashes, row_hashes
from app.spec.data import Decoding, InputSchema, PictureDecoding
from app.spec.faults import Fault, pointer

DIMENSIONS = 3
ARCHITECTURE, STUDENT = "cnn", "cnn-small"
AUGMENTATIONS: frozenset[str] | None = frozenset(
    {"flip", "translation", "rotation", "zoom", "noise", "color", "cutout"}
)
RESIZED = True

CHANNELS = {(1, 3): "repeated", (3, 1): "averaged"}
"""How channels are converted: {(fed, seen): how}. Other pairs have no known meaning and are refused."""


def takes(values: np.ndarray) -> bool:
    return values.ndim > 2


def read(values: np.ndarray, names: list[str] | None, place: str) -> tuple[np.ndarray, InputSchema] | list[Fault]:
    """Whole numbers from 0 to 255 are bytes, whatever their type; others float32, of which the largest is the scale where it is above 1."""
    faults = []
    if names is not None:
        faults.append(
            Fault(pointer("file", "member", "feature_names.npy"), "images have no features to name", "leave it out")
        )
    if _are_bytes(values):
        pixels = np.ascontiguousarray(values, np.uint8)
        pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        return faults or (pixels, InputSchema(kind="image", shape=list(pixels.shape[1:]), scale=255.0))
    numbers = columns.as_float32(values, place)
    if isinstance(numbers, Fault):
        return [*faults, numbers]
    whole = columns.fault_in_whole_numbers(values, place)
    if whole:
        return [*faults, whole]
    numbers = numbers[..., None] if numbers.ndim == 3 else numbers
    scale = max(1.0, float(np.abs(numbers).max()))
    return faults or (numbers, InputSchema(kind="image", shape=list(numbers.shape[1:]), scale=scale))


def hashes(inputs: np.ndarray, input: InputSchema) -> Hashes:
    """Of pixels in steps of 1/65,535 of the scale."""
    return row_hashes(inputs, input.scale)


def encoder(input: InputSchema) -> Encode:
    """Nested lists; without channels where there is one."""
    whole = f"{times(input.shape)} numbers"
    pixels = Numbers(whole, 0, 255, "expected a pixel of 0 to 255") if input.scale == 255 else Numbers(whole)

    def encode(row: object, place: str, faults: list[Fault]) -> np.ndarray | None:
        numbers = pixels.read(row, _shape(row, input), place, faults)
        return None if numbers is None else numbers.reshape(input.shape)

    return encode


def decoding(input: InputSchema) -> Decoding | None:
    """How a picture's file becomes a row of this input; None: no file can. Where the rows came as numbers, nobody
    said how they were cut out of
    pictures: then only a picture of just that size is one."""
    if input.decode is not None or input.scale != 255 or input.shape[-1] not in (1, 3):
        return input.decode
    return PictureDecoding(
        version=PIL.__version__, mode="L" if input.shape[-1] == 1 else "RGB", size=input.shape[:2], fit="exact"
    )


def preview(row: np.ndarray, input: InputSchema) -> Any:  # noqa: ARG001
    return row.tolist()


def refusal(fed: Sequence[int], trunk_shape: Sequence[int]) -> str | None:
    """Why pictures of shape `fed` cannot be shown to a trunk that sees `trunk_shape`, both (height, width, channels); None: they can."""
    if fed[-1] == trunk_shape[-1] or (fed[-1], trunk_shape[-1]) in CHANNELS:
        return None
    conversions = ", ".join(f"{ours} to {theirs} ({how})" for (ours, theirs), how in CHANNELS.items())
    return f"pictures of {_channels(fed)} cannot become pictures of {_channels(trunk_shape)}; known are {conversions}"


def _are_bytes(values: np.ndarray) -> bool:
    """Whether pictures are whole numbers from 0 to 255, in whatever type; floats up to 1 are shares instead."""
    if not (values.min() >= 0 and values.max() <= 255):
        return False
    return values.dtype.kind in "biu" or bool(values.max() > 1 and all((row == np.rint(row)).all() for row in values))


def _shape(row: object, input: InputSchema) -> list[int]:
    """The shape that a row should have: the input's, without its channels where there is one and the row leaves it out."""
    depth, inner = 0, row
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    if input.shape[-1] == 1 and depth == len(input.shape) - 1:
        return input.shape[:-1]
    return input.shape


def _channels(shape: Sequence[int]) -> str:
    return f"{shape[-1]} channel{'s' * (shape[-1] != 1)}"
