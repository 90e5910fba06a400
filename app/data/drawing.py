"""Boxes drawn on a picture, each with its label and how probable it is. What clients send is decoded in the inference program; a
report's pictures are rows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.data import decode

LONGEST_SIDE, SHORTEST_SIDE = 2048, 320
"""A larger picture is drawn smaller, a smaller one larger, so that its labels can be read."""

GAP, LONGEST_BESIDE = 6, 640
"""Pixels between pictures side by side, and the longest side of one."""

COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#469990")
_LIGHT = 140
"""From this brightness on, a colour bears black letters and not white ones."""


def drawn(content: bytes, boxes: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the picture, turned as its EXIF orientation says, with `boxes` on it, the least probable at the bottom.

    Args:
        boxes: each with `label`, `probability` and `box`: left, top, right, bottom in pixels of the picture.

    Raises:
        decode.Undecodable: `content` is no picture.
    """
    height, width = decode.header(content).size
    scale, size = _shown(height, width, LONGEST_SIDE)
    image = Image.fromarray(decode.picture(content, size=size, mode="RGB", fit="stretch"))
    _draw(image, boxes, scale, _colours(boxes))
    return _png(image)


def beside(pictures: Sequence[np.ndarray], lines: Sequence[Sequence[Sequence[Mapping[str, Any]]]]) -> bytes:
    """A PNG of `pictures` of one size, (height, width, 1 or 3) uint8, side by side, once for each of `lines`.

    Args:
        lines: of each line the boxes of each picture, as in `drawn`, of which `probability` may be left out.
    """
    (height, width), count = pictures[0].shape[:2], len(pictures)
    scale, size = _shown(height, width, LONGEST_BESIDE)
    whole = Image.new("RGB", (count * (size[1] + GAP) - GAP, len(lines) * (size[0] + GAP) - GAP), "white")
    colours = _colours([box for line in lines for boxes in line for box in boxes])
    for down, line in enumerate(lines):
        for across, (picture, boxes) in enumerate(zip(pictures, line, strict=True)):
            image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).convert("RGB")
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            _draw(image, boxes, scale, colours)
            whole.paste(image, (across * (size[1] + GAP), down * (size[0] + GAP)))
    return _png(whole)


def _shown(height: int, width: int, longest: int) -> tuple[float, tuple[int, int]]:
    """By how much a picture is drawn larger, and its (height, width) then."""
    scale = min(1.0, longest / max(height, width)) * max(1.0, np.ceil(SHORTEST_SIDE / max(height, width)))
    return scale, (max(1, round(height * scale)), max(1, round(width * scale)))


def _colours(boxes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    labels = sorted({box["label"] for box in boxes})
    return {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}


def _draw(image: Image.Image, boxes: Sequence[Mapping[str, Any]], scale: float, colours: Mapping[str, str]) -> None:
    """The boxes with their labels, the least probable at the bottom."""
    pen, size = ImageDraw.Draw(image), (image.height, image.width)
    letters = max(11, min(size) // 28)
    line, font = max(1, letters // 6), ImageFont.load_default(letters)
    for box in sorted(boxes, key=lambda box: float(box.get("probability", 1))):
        edges, colour = [edge * scale for edge in box["box"]], colours[box["label"]]
        pen.rectangle(edges, outline=colour, width=line)
        words = f"{box['label']} {box['probability']:.0%}" if "probability" in box else str(box["label"])
        _label(pen, words, edges, colour, font, size)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _label(
    pen: ImageDraw.ImageDraw, words: str, edges: Sequence[float], colour: str, font: Any, size: Sequence[int]
) -> None:
    """Above its box, or within it where the picture ends."""
    left, top, right, bottom = pen.textbbox((0, 0), words, font=font)
    wide, tall = right - left + 4, bottom - top + 4
    x = max(0.0, min(edges[0], size[1] - wide))
    y = edges[1] - tall if edges[1] >= tall else min(edges[1], size[0] - tall)
    pen.rectangle([x, y, x + wide, y + tall], fill=colour)
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    light = 0.299 * red + 0.587 * green + 0.114 * blue >= _LIGHT
    pen.text((x + 2 - left, y + 2 - top), words, fill="black" if light else "white", font=font)
