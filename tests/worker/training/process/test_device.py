"""What a trainer imports before its job comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import plain_keras

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


COMPILING = """
import os, sys
from pathlib import Path
os.environ["KERAS_HOME"] = sys.argv[1]
folder = Path(sys.argv[1], "compiled")
folder.mkdir()
for name in ("half-cache", "whole-cache", "whole-atime"):
    (folder / name).write_bytes(bytes(8))
from worker.training.process import device
device.prepare()
import jax
jax.jit(lambda x: x + 1)(1.0)
print(*sorted(path.name.partition("-")[0] for path in folder.glob("*-cache")))
"""


@plain_keras.needs_jax
def test_jax_keeps_what_it_compiles_beside_whole_entries_alone(tmp_path: Path) -> None:
    """A trainer may have been killed between the two files of an entry."""
    assert plain_keras.run(COMPILING, plain_keras.ROOT, tmp_path, backend="jax").split() == ["jit__lambda", "whole"]
