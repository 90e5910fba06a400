"""`causal-transformer` with other numbers."""

from __future__ import annotations

from worker.training.networks.architectures.causal_transformer import build

__all__ = ["build"]
