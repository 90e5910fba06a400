"""What a trainer imports before its job comes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from worker.training.process import device
device.import_keras()
import worker.training.trainer, worker.training.experiment.job, worker.training.methods.transfer.train
print("LOADED", sorted({"jax", "scipy", "sklearn"}.intersection(sys.modules)))
import scipy.special, jax, sklearn  # which can be had all the same
import keras
print("BACKEND", keras.backend.backend())
"""


@pytest.mark.parametrize(("backend", "loaded"), [("tensorflow", []), ("jax", ["jax", "scipy"])])
def test_a_spare_trainer_has_not_loaded_what_nobody_needs(backend: str, loaded: list[str]) -> None:
    environment = os.environ | {"KERAS_BACKEND": backend}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.split("\n")[:2] == [f"LOADED {loaded}", f"BACKEND {backend}"]
