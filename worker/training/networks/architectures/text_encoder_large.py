"""The same layers as `text-encoder`, in other numbers."""

from __future__ import annotations

from worker.training.networks.architectures.text_encoder import build

__all__ = ["build"]
