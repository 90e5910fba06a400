"""The same layers as `late-fusion`, in other numbers."""

from __future__ import annotations

from worker.training.networks.architectures.late_fusion import build

__all__ = ["build"]
