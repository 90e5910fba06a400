"""Sounds: samples divided by full scale, to -1…1. What a network makes of them first, a spectrogram, is its own."""

from __future__ import annotations

from worker.training.data.inputs.image import fit, layer, scaling_of

__all__ = ["SCALED_AS_THE_SOURCE", "fit", "layer", "scaling_of"]

SCALED_AS_THE_SOURCE = False
