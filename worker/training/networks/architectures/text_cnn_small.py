"""The same layers as `text-cnn`, in other numbers."""

from __future__ import annotations

from worker.training.networks.architectures.text_cnn import build

__all__ = ["build"]
