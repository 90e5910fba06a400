"""Tables: each feature by the mean and deviation of all rows that train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.training.data.scaling import Scaling

if TYPE_CHECKING:
    from app.spec.data import InputSchema

SCALED_AS_THE_SOURCE = True

LEAST_STD = (
    1e-7  # what keras.layers.Normalization divides by at least: below it the exported model would scale otherwise
)


def fit(input: InputSchema, parts: Sequence[np.ndarray]) -> Scaling:  # noqa: ARG001
    inputs = np.concatenate(parts).astype(np.float64)
    mean, std = inputs.mean(axis=0), inputs.std(axis=0)
    std = np.where(std > np.maximum(LEAST_STD, 1e-12 * np.abs(mean)), std, 1.0)
    return Scaling(tuple(mean.astype(np.float32).tolist()), tuple(std.astype(np.float32).tolist()))


def layer(scaling: Scaling, input: InputSchema) -> Any:
    import keras

    wide = input.shape[-1] if len(scaling.mean) == 1 else 1
    variance = [float(one) ** 2 for one in scaling.std]
    return keras.layers.Normalization(
        axis=-1, mean=list(scaling.mean) * wide, variance=variance * wide, name="preprocessing", dtype="float32"
    )


def scaling_of(layer: Any) -> Scaling:
    config = layer.get_config()
    mean, variance = np.ravel(config["mean"]), np.ravel(config["variance"])
    return Scaling(tuple(float(one) for one in mean), tuple(float(np.float32(np.sqrt(one))) for one in variance))
