"""Numbers by rule for tiny models of Hugging Face, so that the numbers need not be stored beside what the models make of them.

NumPy alone, and nothing of the project: `benchmarks/rivals/transformers_side.py` reads this file by its path, in an environment of its own.
Whoever changes a rule here has to run that script anew.
"""

from __future__ import annotations

import zlib

import numpy as np

WORDS, LENGTH = 40, 12  # ids lie below WORDS; a row has LENGTH of them
PADDING, FIRST, LAST, PLAIN = 0, 2, 3, 5  # [CLS] first, [SEP] last; words proper start at PLAIN


def array(name: str, shape: tuple[int, ...] | list[int]) -> np.ndarray:
    """The array of this name: of its name and shape alone, and so spread that what a layer gives is of the size of what it takes."""
    shape = tuple(shape)
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if kind == "running_var":
        values = 1 + 0.5 * rng.random(shape)
    else:
        values = rng.standard_normal(shape)
        if len(shape) > 1:
            # Matrices are (out, in) and kernels (out, in, rows, columns). Three axes are tokens and positions, (1, tokens, width).
            values /= np.sqrt(np.prod(shape[2:] if len(shape) == 3 else shape[1:]))
        elif kind == "weight":
            values = 1 + 0.1 * values
        else:
            values *= 0.1
    return values.astype(np.float32)


def ids() -> np.ndarray:
    """Two rows of ids (2, LENGTH): a full one, and a shorter one with padding after it, which must not count."""
    rows = np.full((2, LENGTH), PADDING, np.int32)
    for row, length in enumerate((LENGTH, 7)):
        places = np.arange(1, length - 1)
        rows[row, 1 : length - 1] = PLAIN + (11 * places + 17 * row) % (WORDS - PLAIN)
        rows[row, 0], rows[row, length - 1] = FIRST, LAST
    return rows


def pictures() -> np.ndarray:
    """Two pictures (2, 32, 32, 3) with neither symmetry nor like colours, so that a swap of axes or of channels shows."""
    picture, row, column, channel = np.ogrid[:2, :32, :32, :3]
    waves = 5 * row + 3 * column + row * column // (4 + channel) + 37 * channel + 101 * picture + 2 * picture * row
    return (waves % 256).astype(np.uint8)
