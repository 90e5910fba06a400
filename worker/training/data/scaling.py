"""What is done to raw inputs before the first layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scaling:
    """(x - mean) / std, in float32. Images: mean 0, std the schema's scale; tables: a number for each feature."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (inputs.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(
            self.std, np.float32
        )
        return scaled
