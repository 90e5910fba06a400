"""The same layers as `cnn`, in other numbers."""

from __future__ import annotations

from worker.training.networks.architectures.cnn import build

__all__ = ["build"]
