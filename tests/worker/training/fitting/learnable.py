"""A fit that a small network learns something in."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.spec.training import EarlyStopping, TrainingSpec
from tests.worker.training.small import DIGIT, ODD, batch_source, network, stored
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Check, FitSpec, Phase
from worker.training.tasks import heads
from worker.training.weighting import uncertainty

DROPPING = {"arch": "mlp", "units": [12], "dropout": 0.3, "batch_norm": True}


def learnable() -> tuple[Any, FitSpec]:
    """Two tasks that follow from the inputs, one with few labels, weighed by uncertainty, watched on rows of their own."""
    whole = network([DIGIT, ODD], seed=2, architecture=DROPPING)
    columns = {"digit": stored(DIGIT, 60), "odd": stored(ODD, 60)}
    data = batch_source(whole, columns, 12)
    codes = (data.inputs[:, 0] > 0).astype(np.int32) + 2 * (data.inputs[:, 1] > 0).astype(np.int32)
    columns = {"digit": np.where(np.arange(60) % 3 == 0, codes, -1).astype(np.int32), "odd": codes % 2}
    for name, values in columns.items():
        data.given |= heads.targets(whole.tasks[name], values)
    fresh = np.random.default_rng(5).standard_normal((30, 5)).astype(np.float32)
    truth = (fresh[:, 0] > 0).astype(np.int32) + 2 * (fresh[:, 1] > 0).astype(np.int32)
    loss_spec = LossSpec({"d": ["digit", "odd"]}, whole.tasks, weighting=uncertainty.Spec())
    checks = {"digit": Check("accuracy", fresh, truth), "odd": Check("accuracy", fresh, truth % 2)}
    return whole, FitSpec(loss_spec, {"d": data}, checks)


TRAINING = TrainingSpec(early_stopping=EarlyStopping(patience=50), schedule="cosine")

PHASES = [Phase(23, 1e-2, frozenset({"dense1"}), True), Phase(40, 5e-3)]
