"""Files to rows, by what an input's schema says of it: which of the modules that are shipped with models does it, and how."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

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


def decoder(how: Decoding) -> str:
    """The libraries that do it here, and the version of our rules."""
    if isinstance(how, PictureDecoding):
        return f"Pillow {PIL.__version__}, rules {decode.VERSION}"
    import soundfile
    import soxr

    return f"libsndfile {soundfile.__libsndfile_version__}, soxr {soxr.__version__}, rules {decode_sound.VERSION}"


def made_file(how: Decoding) -> bytes:
    """A small file, the same each time, of another size, mode or rate than a row's where that is allowed: what it becomes shows whether
    files are still decoded as they were."""
    content = io.BytesIO()
    if isinstance(how, PictureDecoding):
        height, width = how.size if how.fit == "exact" else (90, 120)
        y, x = np.mgrid[:height, :width]
        blocks = (y // 15 * 8 + x // 15) * 37 % 256
        pixels = np.stack([blocks, 255 - blocks, (x + y) % 2 * 255], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(content, "PNG")
    else:
        rate = 44_100 if how.rate != 44_100 else 48_000
        seconds = np.arange(rate // 10) / rate
        left, right = np.sin(2 * np.pi * 440 * seconds), np.sign(np.sin(2 * np.pi * 97 * seconds))
        samples = np.rint(8000 * np.stack([left, right], axis=1)).astype("<i2")
        with wave.open(content, "wb") as file:
            file.setparams((2, 2, rate, len(samples), "NONE", "not compressed"))
            file.writeframes(samples.tobytes())
    return content.getvalue()


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
