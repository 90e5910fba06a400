"""Pictures: (height, width, channels), bytes or numbers in 0…`scale`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import PIL

from app.data import columns
from app.data.inputs import Encode
from app.data.lists import Numbers, times
from app.data.table import Hashes, row_hashes
from app.spec.data import Decoding, InputSchema, PictureDecoding
from app.spec.faults import Fault, pointer
from app.spec.intake import Fit

DIMENSIONS = 3
ARCHITECTURE, STUDENT = "cnn", "cnn-small"
AUGMENTATIONS: frozenset[str] | None = frozenset(
    {"flip", "translation", "rotation", "zoom", "crop", "rand_augment", "noise", "color", "cutout", "mixup"}
)
RESIZED = True
STORED = np.uint8

NEARLY_EQUAL = "pictures whose difference hashes differ in at most 4 of 64 bits, and which correlate at 9 × 8 pixels by 0.998 or more"
BITS, FLAT, CORRELATION = 4, 8, 0.998

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
    said how they were cut out of pictures: then only a picture of just that size is one."""
    if input.decode is not None or input.scale != 255 or input.shape[-1] not in (1, 3):
        return input.decode
    return decoded(input.shape, "exact")


def decoded(shape: Sequence[int], fit: Fit | Literal["exact"]) -> PictureDecoding:
    """How files become rows of `shape`, (height, width, one or three channels), by the library that is here."""
    height, width, channels = shape
    return PictureDecoding(version=PIL.__version__, mode="L" if channels == 1 else "RGB", size=[height, width], fit=fit)


def preview(row: np.ndarray, input: InputSchema) -> Any:  # noqa: ARG001
    return row.tolist()


def refusal(fed: Sequence[int], trunk_shape: Sequence[int]) -> str | None:
    """Why pictures of shape `fed` cannot be shown to a trunk that sees `trunk_shape`, both (height, width, channels); None: they can."""
    if fed[-1] == trunk_shape[-1] or (fed[-1], trunk_shape[-1]) in CHANNELS:
        return None
    conversions = ", ".join(f"{ours} to {theirs} ({how})" for (ours, theirs), how in CHANNELS.items())
    return f"pictures of {_channels(fed)} cannot become pictures of {_channels(trunk_shape)}; known are {conversions}"


def fingerprints(inputs: np.ndarray, input: InputSchema) -> np.ndarray:  # noqa: ARG001
    """The grey picture of 9 × 8 with its levels spread over a byte, and before it its difference hash (Krawetz 2013): 64 bits, whether each
    place is brighter than its right neighbour, by more than compression stirs up in a flat ground. (n, 8 + 72) uint8."""
    small = _small(inputs)
    low, high = small.min(axis=(1, 2), keepdims=True), small.max(axis=(1, 2), keepdims=True)
    levels = np.rint((small - low) * (255 / np.where(high > low, high - low, 1)))
    bits = np.packbits(levels[:, :, :-1] - levels[:, :, 1:] > FLAT, axis=None).reshape(len(small), 8)
    return np.hstack([bits, levels.astype(np.uint8).reshape(len(small), -1)])


def bands(fingerprints: np.ndarray) -> np.ndarray:
    """Five parts of the hash: two that differ in four bits have one in common."""
    whole = np.ascontiguousarray(fingerprints[:, :8]).view(">u8").astype(np.uint64)
    cuts = [0, 13, 26, 39, 52, 64]
    return np.hstack([(whole >> np.uint64(start)) & np.uint64(2 ** (end - start) - 1) for start, end in pairwise(cuts)])


def nearly(ours: np.ndarray, theirs: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether at most four bits differ, and the small pictures correlate as only one and the same picture does. By bits alone most
    drawings on a plain ground are alike: of `digits` nine test rows in ten had a twin."""
    own, other = (np.ascontiguousarray(side[:, :8]).view(np.uint64)[:, 0] for side in (ours, theirs))
    alike = np.bitwise_count(own[left] ^ other[right]) <= BITS
    a, b = (side[at[alike], 8:].astype(np.float32) for side, at in ((ours, left), (theirs, right)))
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (a, b))
    lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    alike[alike] = (a * b).sum(axis=1) >= CORRELATION * lengths
    return np.asarray(alike)


def _small(inputs: np.ndarray) -> np.ndarray:
    """(n, 8, 9): grey, each place the mean of what it covers."""
    grey = inputs.mean(axis=-1, dtype=np.float32)
    down, across = _cover(8, grey.shape[1]), _cover(9, grey.shape[2])
    return np.asarray(down @ grey @ across.T)


def _cover(places: int, pixels: int) -> np.ndarray:
    """(places, pixels): the share of each place that each pixel covers."""
    edges = np.arange(places + 1)[:, None] * pixels / places
    reached = np.clip(edges - np.arange(pixels), 0, 1)
    return np.asarray(np.diff(reached, axis=0) * places / pixels, np.float32)


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
