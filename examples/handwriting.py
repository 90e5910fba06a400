"""A folder of pictures to try an upload with: real handwritten digits as JPEG files of many sizes, one folder a class, in handwriting.zip.

    .venv/bin/python examples/handwriting.py

They are the service's own `digits` (UCI, CC BY 4.0), enlarged or shrunk at random, always the same.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from app.data import builtins

COUNT, SMALLEST, LARGEST = 900, 20, 90


def main(path: Path = Path("handwriting.zip")) -> None:
    table = builtins.load("digits")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(table))[:COUNT]
    with zipfile.ZipFile(path, "w") as archive:
        for number, (pixels, digit) in enumerate(zip(table.inputs[rows], table.columns["digit"][rows], strict=True)):
            height, width = (int(side) for side in rng.integers(SMALLEST, LARGEST, 2))
            content = io.BytesIO()
            Image.fromarray(pixels[..., 0]).resize((width, height)).save(content, "JPEG", quality=90)
            archive.writestr(zipfile.ZipInfo(f"handwriting/{digit}/{number}.jpg"), content.getvalue())
    print(f"{path}: {COUNT} pictures")  # noqa: T201


if __name__ == "__main__":
    main()
