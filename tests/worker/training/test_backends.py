"""The same weightings, sharings, objectives and regularizers on TensorFlow and on JAX: values, logs, networks after steps agree to 1e-5.

JAX is an extra. Where this Python has none, BEQUEST_JAX_PYTHON may name one that has (with keras, pydantic-settings, pyarrow, h5py).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
JAX_PYTHON = os.environ.get("BEQUEST_JAX_PYTHON") or (sys.executable if importlib.util.find_spec("jax") else None)


def told(python: str, backend: str) -> dict[str, Any]:
    line = [python, "-m", "tests.worker.training.both_backends"]
    quickly = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compiling is nearly all that JAX does here
    environment = {
        **os.environ,
        **quickly,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
    }
    ended = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [number for key in sorted(tree) for number in numbers(tree[key])]
    if isinstance(tree, list):
        return [number for one in tree for number in numbers(one)]
    return [np.nan if tree is None else float(tree)]


@pytest.mark.slow
@pytest.mark.skipif(JAX_PYTHON is None, reason="no Python with JAX; BEQUEST_JAX_PYTHON names one")
def test_every_weighting_sharing_objective_and_regularizer_is_the_same_on_both_backends() -> None:
    assert JAX_PYTHON is not None
    ours, theirs = told(sys.executable, "tensorflow"), told(JAX_PYTHON, "jax")
    assert (ours["backend"], theirs["backend"]) == ("tensorflow", "jax")
    assert len(ours["values"]) >= 9
    assert set(ours["steps"]) >= {"pcgrad", "mgda", "cagrad", "gradnorm", "uncertainty", "famo"}
    assert len(ours["objectives"]) >= 7
    assert len(ours["sharings"]) >= 5
    assert set(ours["regularizers"]) >= {"l2_sp", "bss"}
    for part in set(ours) - {"backend"}:
        assert set(ours[part]) == set(theirs[part])
        for name in ours[part]:
            one, other = numbers(ours[part][name]), numbers(theirs[part][name])
            assert one == pytest.approx(other, rel=1e-5, abs=1e-5, nan_ok=True), (part, name)
