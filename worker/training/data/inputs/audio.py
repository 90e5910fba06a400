"""Sounds: samples divided by full scale, to -1…1. What a network makes of them first, a spectrogram, is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker.training.data.inputs.image import fit, layer, scaling_of

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from worker.training.data.scaling import Scaling

__all__ = ["SCALED_AS_THE_SOURCE", "fit", "golden", "layer", "scaling_of"]

SCALED_AS_THE_SOURCE = False
PERIOD = 1009


def golden(input: InputSchema, scaling: Scaling, n: int, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Noise, from faint to half of full scale. It repeats after 1,009 samples, so that a file that holds it is small."""
    samples, channels = input.shape
    noise = np.tile(rng.uniform(-0.5, 0.5, (n, PERIOD, channels)), (1, -(-samples // PERIOD), 1))[:, :samples]
    return (noise * np.geomspace(0.02, 1, n).reshape(n, 1, 1) * input.scale).astype(np.int16)
