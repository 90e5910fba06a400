"""Pictures to try an upload with: real handwritten digits as JPEG files of many sizes.

    .venv/bin/python examples/handwriting.py

It writes handwriting.zip, with a folder for each class, and digit.jpg, one more picture. They are the service's own
`digits` (UCI, CC BY 4.0), brought to sizes drawn at random, the same each time.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from app.data import builtins

COUNT, SMALLEST, LARGEST = 900, 20, 90


def main(folder: Path = Path()) -> None:
    table = builtins.load("digits")
    rng = np.random.default_rng(0)
    *rows, one_more = rng.permutation(len(table))[: COUNT + 1]
    with zipfile.ZipFile(folder / "handwriting.zip", "w") as archive:
        for number, row in enumerate(rows):
            name = f"handwriting/{table.columns['digit'][row]}/{number}.jpg"
            archive.writestr(zipfile.ZipInfo(name), jpeg(table.inputs[row], rng))
    (folder / "digit.jpg").write_bytes(jpeg(table.inputs[one_more], rng))


def jpeg(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A picture (28, 28, 1) as a JPEG of another size."""
    height, width = (int(side) for side in rng.integers(SMALLEST, LARGEST, 2))
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0]).resize((width, height)).save(content, "JPEG", quality=90)
    return content.getvalue()


if __name__ == "__main__":
    main()
