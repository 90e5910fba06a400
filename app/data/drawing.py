"""Boxes drawn on a picture, each with its label and how probable it is. Runs in the inference program, which decodes
what clients send."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.data import decode

LONGEST_SIDE, SHORTEST_SIDE = 2048, 320
"""A larger picture is drawn smaller, a smaller one larger, so that its labels can be read."""

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
    scale = min(1.0, LONGEST_SIDE / max(height, width)) * max(1.0, np.ceil(SHORTEST_SIDE / max(height, width)))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image = Image.fromarray(decode.picture(content, size=size, mode="RGB", fit="stretch"))
    pen = ImageDraw.Draw(image)
    letters = max(11, min(size) // 28)
    line, font = max(1, letters // 6), ImageFont.load_default(letters)
    colours = {
        label: COLOURS[place % len(COLOURS)] for place, label in enumerate(sorted({box["label"] for box in boxes}))
    }
    for box in sorted(boxes, key=lambda box: float(box["probability"])):
        edges, colour = [edge * scale for edge in box["box"]], colours[box["label"]]
        pen.rectangle(edges, outline=colour, width=line)
        _label(pen, f"{box['label']} {box['probability']:.0%}", edges, colour, font, size)
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
