"""Specs of jobs that are stopped and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.worker.training.driven import assignment as resolved

MLP = {"arch": "mlp", "units": [8, 6], "dropout": 0.25, "batch_norm": True}

CNN = {"arch": "cnn-small", "dropout": 0.25, "batch_norm": True}

TABLE = {"dataset": "wine", "architecture": MLP, "training": {"epochs": 3, "batch_size": 32}}

PICTURES = {"dataset": "digits", "limit_train_examples": 90, "architecture": CNN, "training": {"steps": 5}}


def assignment(body: dict[str, Any]) -> dict[str, Any]:
    words = resolved(body, Path("unused"))
    return {key: value for key, value in words.items() if key not in ("checkpoints", "kept")}
