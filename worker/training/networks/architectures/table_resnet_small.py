"""The same layers as `table-resnet`, in other numbers."""

from __future__ import annotations

from worker.training.networks.architectures.table_resnet import build

__all__ = ["build"]
