"""The same weightings, sharings, objectives and regularizers on TensorFlow and on JAX: values, logs, networks after steps agree to 1e-5."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests import plain_keras

PROGRAM = """
import os
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiling is nearly all that JAX does here
from tests.worker.training import both_backends
both_backends.main()
"""


def told(backend: str) -> dict[str, Any]:
    printed = plain_keras.run(PROGRAM, plain_keras.ROOT, backend=backend, seconds=900)
    return json.loads(printed.splitlines()[-1])  # type: ignore[no-any-return]


def numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [number for key in sorted(tree) for number in numbers(tree[key])]
    if isinstance(tree, list):
        return [number for one in tree for number in numbers(one)]
    return [np.nan if tree is None else float(tree)]


@pytest.mark.slow
@plain_keras.needs_jax
def test_every_weighting_sharing_objective_and_regularizer_is_the_same_on_both_backends() -> None:
    ours, theirs = told("tensorflow"), told("jax")
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
