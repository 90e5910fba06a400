"""Tables: each feature by the mean and deviation of all rows that train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data.source import blocks
from worker.training.data.scaling import Scaling

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from worker.training.data.inputs import Trained

SCALED_AS_THE_SOURCE = True

LEAST_STD = (
    1e-7  # what keras.layers.Normalization divides by at least: below it the exported model would scale otherwise
)


def fit(input: InputSchema, parts: Sequence[Trained]) -> Scaling:  # noqa: ARG001
    """Sums row after row in float64, so that blocks give the very numbers of NumPy's `mean` and `std` of all rows at once."""
    rows = sum(len(numbers) for _, numbers in parts)
    mean = _sum(parts, lambda block: block) / rows
    std = np.sqrt(_sum(parts, lambda block: (block - mean) ** 2) / rows)
    std = np.where(std > np.maximum(LEAST_STD, 1e-12 * np.abs(mean)), std, 1.0)
    return Scaling(tuple(mean.astype(np.float32).tolist()), tuple(std.astype(np.float32).tolist()))


def _sum(parts: Sequence[Trained], of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The sum over all rows, (features,). NumPy adds several features row by row, but a single one in pairs: it is added at once."""
    values = (of(block.astype(np.float64)) for source, rows in parts for block in blocks(source, rows))
    if parts[0][0].shape[1] == 1:
        return np.asarray(np.add.reduce(np.concatenate(list(values)), axis=0))
    total = np.add.reduce(next(values), axis=0)
    for block in values:
        total = np.add.reduce(np.concatenate([total[None], block]), axis=0)
    return np.asarray(total)


def layer(scaling: Scaling, input: InputSchema) -> Any:
    import keras

    wide = input.shape[-1] if len(scaling.mean) == 1 else 1
    variance = [float(std) ** 2 for std in scaling.std]
    return keras.layers.Normalization(
        axis=-1, mean=list(scaling.mean) * wide, variance=variance * wide, name="preprocessing", dtype="float32"
    )


def scaling_of(layer: Any) -> Scaling:
    config = layer.get_config()
    mean, variance = np.ravel(config["mean"]), np.ravel(config["variance"])
    return Scaling(
        tuple(float(value) for value in mean), tuple(float(np.float32(np.sqrt(value))) for value in variance)
    )
