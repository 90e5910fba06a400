"""The same layers as `audio-cnn`, in other numbers."""

from __future__ import annotations

from worker.training.networks.architectures.audio_cnn import build

__all__ = ["build"]
