"""Files to rows, by what an input's schema says of it: which of the modules that are shipped with models does it, and how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.data import decode, decode_sound
from app.spec.data import Decoding, PictureDecoding

UNDECODABLE = (decode.Undecodable, decode_sound.Undecodable)
"""What `row` raises where a file cannot be read. The message says why."""


def row(content: bytes, how: Decoding) -> np.ndarray:
    """A file as a stored row. Raises one of `UNDECODABLE`."""
    if isinstance(how, PictureDecoding):
        return decode.picture(content, size=how.size, mode=how.mode, fit=how.fit)
    return decode_sound.sound(content, rate=how.rate, samples=how.samples)


def size(content: bytes, how: Decoding) -> list[int] | None:
    """(height, width) of a picture as it is to be looked at, None of other files. Raises as `row` does."""
    return list(decode.header(content).size) if isinstance(how, PictureDecoding) else None


def back(there: Sequence[int], how: Decoding) -> tuple[tuple[float, float], tuple[float, float]]:
    """How a place on a row goes back to the picture of size `there` that it was made of: a share of the row's height
    becomes scale · share + shift pixels, and of its width too; ((scale, shift) of y, of x)."""
    assert isinstance(how, PictureDecoding), "sounds have no places"
    (down, above), (across, before) = decode.placement(there, how.size, how.fit)
    return (how.size[0] / down, -above / down), (how.size[1] / across, -before / across)


def module(how: Decoding) -> Path:
    """The file that does it, which needs nothing of ours."""
    return Path(str((decode if isinstance(how, PictureDecoding) else decode_sound).__file__))


def example(how: Decoding) -> str:
    """Lines of Python that make `rows` of a file, by that module under the name `preprocess`."""
    if isinstance(how, PictureDecoding):
        call, file = "picture", "a.jpg"
        words = f'size=({", ".join(map(str, how.size))}), mode="{how.mode}", fit="{how.fit}"'
    else:
        call, file, words = "sound", "a.wav", f"rate={how.rate}, samples={how.samples}"
    return (
        "import keras\n"
        "import numpy as np\n"
        f"from preprocess import {call}\n"
        f'rows = np.stack([{call}(open("{file}", "rb").read(), {words})])\n'
    )
