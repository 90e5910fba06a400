"""Bytes to arrays: one way for the rows of a data set, for requests to predict, and for a user's own program.

This file stands beside a kept model as `preprocess.py`. It needs NumPy and Pillow, and nothing of the service.

    row = picture(open("bird.jpg", "rb").read(), size=(64, 64), mode="RGB", fit="pad")
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

VERSION = 1
"""Raised whenever the same bytes would give other numbers."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
FITS = ("stretch", "crop", "pad", "exact")
MOST_PIXELS = 50_000_000

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_GREY = ("1", "L", *_SIXTEEN_BITS)
_WITH_ALPHA = {"RGBA", "LA", "La", "RGBa", "PA"}
_BEGINNINGS = (
    (b"<", "it begins like HTML or XML"),
    (b"\x00\x00\x00", "it begins like a video or a HEIC picture"),
    (b"%PDF", "it is a PDF"),
    (b"RIFF", "it begins like a sound or a video"),
    (b"PK", "it begins like a zip archive"),
)


class Undecodable(ValueError):
    """Bytes that are no picture of a known format, or a damaged one. The message says which."""


@dataclass(frozen=True)
class Header:
    """What a picture says of itself: (height, width) as it is to be looked at, whether it is grey, and its EXIF
    orientation, 1 to 8."""

    size: tuple[int, int]
    grey: bool
    orientation: int = 1


def header(content: bytes) -> Header:
    """The size and mode of a picture, from its first bytes alone. Raises Undecodable."""
    image = _opened(content)
    width, height = image.size
    orientation = _orientation(image)
    size = (width, height) if orientation in _TURNED else (height, width)
    return Header(size, image.mode in _GREY and not _has_alpha(image), orientation)


def picture(content: bytes, *, size: Sequence[int], mode: str, fit: str) -> np.ndarray:
    """The first picture in `content` as (height, width, channels) uint8.

    It is turned as its EXIF orientation says; 16 bits become 8 by division by 257; what is transparent stands on
    white. Then it is brought to `size` by bilinear reading with antialiasing.

    Args:
        content: a JPEG, PNG, WebP, BMP, GIF or TIFF file.
        size: (height, width).
        mode: "RGB" (3 channels) or "L" (1, grey).
        fit: "stretch" to the size whatever the proportions; "crop" what reaches beyond it, evenly; "pad" with black,
            evenly; "exact": a picture of another size is refused.

    Raises:
        Undecodable: with what is the matter.
    """
    image = _opened(content)
    height, width = size
    if fit == "exact" and header(content).size != (height, width):
        there = header(content).size
        raise Undecodable(f"it is {there[0]} × {there[1]} pixels; this model takes {height} × {width}")
    try:
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            least = 2 * max(height, width)  # decoded at an eighth, a quarter or half of its size where that is enough
            image.draft(None, (least, least))
        image.load()
    except Exception as error:  # a damaged file may raise almost anything in Pillow
        raise Undecodable(_damage(error)) from None
    image = _eight_bits(_turned(image))
    if _has_alpha(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = _fitted(image.convert(mode), (width, height), fit)
    pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def placement(there: Sequence[int], size: Sequence[int], fit: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where `picture` puts a place: a picture's y becomes scale · y + shift in the row, and its x too; ((scale, shift)
    of y, of x).

    Args:
        there: (height, width) of the picture as it is to be looked at, as `header` gives it.
        size, fit: as in `picture`.
    """
    if fit in ("stretch", "exact") or tuple(there) == tuple(size):
        return (size[0] / there[0], 0.0), (size[1] / there[1], 0.0)
    inner = _inner(there, size, fit)
    down, across = (
        (inside / side, float(-_before(inside, wanted)))
        for inside, side, wanted in zip(inner, there, size, strict=True)
    )
    return down, across


def _opened(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception as error:
        raise Undecodable(_not_a_picture(content, error)) from None
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Undecodable(f"{width} × {height} pixels, at most {MOST_PIXELS} are read")
    if width < 1 or height < 1:
        raise Undecodable("it has no pixels")
    if image.mode == "F":
        raise Undecodable("its pixels are floating-point numbers; save it with 8 or 16 bits a channel")
    return image


def _not_a_picture(content: bytes, error: Exception) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {MOST_PIXELS} pixels"
    start = content.lstrip(b"\xef\xbb\xbf \r\n\t")[:16]
    what = next((what for beginning, what in _BEGINNINGS if start.startswith(beginning)), None)
    return f"no picture of a known format ({', '.join(FORMATS)})" + (f": {what}" if what else "")


def _damage(error: Exception) -> str:
    if isinstance(error, MemoryError):
        raise error
    if "truncated" in str(error) or isinstance(error, EOFError):
        return "the picture ends early"
    return "the picture is damaged"


def _orientation(image: Image.Image) -> int:
    try:
        stated = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read says nothing
        return 1
    return stated if 1 <= stated <= 8 else 1


def _turned(image: Image.Image) -> Image.Image:
    if _orientation(image) == 1:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow's own conversion cuts at 255: a 16-bit picture would be white."""
    if image.mode not in _SIXTEEN_BITS:
        return image
    values = np.clip(np.asarray(image, np.int64), 0, 65535)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def _fitted(image: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """`size`: (width, height)."""
    if image.size == size:
        return image
    if fit == "stretch":
        return image.resize(size, Image.Resampling.BILINEAR)
    inner = _inner(image.size, size, fit)
    image = image.resize((inner[0], inner[1]), Image.Resampling.BILINEAR)
    left, top = (_before(there, wanted) for there, wanted in zip(inner, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def _inner(there: Sequence[int], size: Sequence[int], fit: str) -> list[int]:
    """The sides of a picture of `there` once it is brought to `size`, before it is cropped or padded."""
    ratios = [wanted / side for wanted, side in zip(size, there, strict=True)]
    ratio = max(ratios) if fit == "crop" else min(ratios)
    return [max(1, round(side * ratio)) for side in there]


def _before(inner: int, wanted: int) -> int:
    """Pixels cut off before the first one that is kept; below 0 those that are added."""
    return (inner - wanted) // 2
