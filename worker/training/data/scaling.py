"""What is done to raw inputs before the first layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from worker.training.data.preparation import Preparation
    from worker.training.data.tokens import Tokenizer


@dataclass(frozen=True)
class Scaling:
    """(x - mean) / std, in float32. Images: mean 0, std the schema's scale; tables: a number for each number of a prepared row.

    `preparation`: what is done to a table's rows first, where they have gaps or categories. `tokenizer`: of texts that a network sees in
    tokens; no layer of a kept model can do that, so such a model takes ids.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    preparation: Preparation | None = None
    tokenizer: Tokenizer | None = None

    def given(self, inputs: np.ndarray) -> np.ndarray:
        """Stored rows as a kept model takes them, float32: as they are, or as ids of tokens."""
        return self.tokenizer(inputs) if self.tokenizer is not None else inputs.astype(np.float32)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        if self.tokenizer is not None:
            return self.tokenizer(inputs)
        if self.preparation is not None:
            inputs = self.preparation(inputs)
        scaled: np.ndarray = inputs.astype(np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        if mean.any():  # in place: of large pictures each copy takes as much as the batch
            scaled -= mean
        scaled /= std
        return scaled

    @property
    def unit(self) -> np.ndarray:
        """The deviation of each number of a raw row, float32; 0 for the code of a class, to which nothing can be added."""
        std = np.array(self.std, np.float32)
        return std if self.preparation is None else self.preparation.of_raw(std)


@dataclass(frozen=True)
class Joint(Scaling):
    """Of rows that have several parts side by side: each part's own, in their order. `parts`: the shape of one's row, and its scaling."""

    parts: tuple[tuple[tuple[int, ...], Scaling], ...] = ()

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """(n, numbers) to (n, scaled numbers)."""
        scaled = [scaling(rows) for rows, (_, scaling) in zip(self.cut(inputs), self.parts, strict=True)]
        return np.concatenate([rows.reshape(len(rows), -1) for rows in scaled], axis=1)

    def cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows of each part, in its own shape."""
        ends = np.cumsum([prod(shape) for shape, _ in self.parts])
        return [
            flat.reshape(len(rows), *shape)
            for flat, (shape, _) in zip(np.split(rows, ends[:-1], axis=1), self.parts, strict=True)
        ]
