"""Sigmoid heads at a logit of exactly 0, as of a row whose features are all dead, and at very large ones: by hand, on both backends."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tests import plain_keras
from tests.worker.training.tasks import sigmoid_heads

TINY = math.exp(-20)  # 1 − σ(20), to nine digits


def of_jax() -> dict[str, Any]:
    program = (
        "import json\nfrom tests.worker.training.tasks import sigmoid_heads\nprint(json.dumps(sigmoid_heads.told()))"
    )
    printed = plain_keras.run(program, plain_keras.ROOT, backend="jax")
    return json.loads(printed.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(
    scope="module",
    params=[
        "tensorflow",
        pytest.param("jax", marks=[pytest.mark.slow, plain_keras.needs_jax]),
    ],
)
def told(request: pytest.FixtureRequest) -> dict[str, Any]:
    answer = sigmoid_heads.told() if request.param == "tensorflow" else of_jax()
    assert answer["backend"] == request.param
    return answer


def test_the_loss_of_one_logit_and_its_gradient(told: dict[str, Any]) -> None:
    """−log σ(±z), and σ(z) − y: at 0 one half either way. A small loss keeps its digits on both sides."""
    (losses, slopes), (losses_of_1, slopes_of_1) = told["binary"]
    assert sigmoid_heads.LOGITS == (0, 20, -20, 200, -200)
    assert losses == pytest.approx([math.log(2), 20, TINY, 200, 0], rel=1e-6, abs=1e-12)
    assert losses_of_1 == pytest.approx([math.log(2), TINY, 20, 0, 200], rel=1e-6, abs=1e-12)
    assert np.ravel(slopes) == pytest.approx([0.5, 1, TINY, 1, 0], rel=1e-6, abs=1e-12)
    assert np.ravel(slopes_of_1) == pytest.approx([-0.5, -TINY, -1, 0, -1], rel=1e-6, abs=1e-12)


def test_the_loss_of_labels_is_the_mean_of_those_that_are_known(told: dict[str, Any]) -> None:
    losses, slopes = told["multilabel"]
    assert losses == pytest.approx([math.log(2), 200 / 3, 400 / 3], rel=1e-6)
    third = np.array([[0.5, -0.5, 0, -0.5], [1, 0, 0, 0], [0, -1, 0, -1]]) / 3
    assert np.allclose(slopes, third, rtol=1e-6, atol=1e-12)


def test_soft_targets_pull_a_student_at_0_towards_each_teacher(told: dict[str, Any]) -> None:
    """T²·KL(q ‖ ½) and T·(½ − q), with q = σ(t/T)."""
    for temperature, binary, labels in zip((1.0, 4.0), *told["distilled"].values(), strict=True):
        q = 1 / (1 + np.exp(-np.array(sigmoid_heads.TEACHER) / temperature))
        entropy = np.array([-sum(p * math.log(p) for p in (one, 1 - one) if p > 0) for one in q])
        expected, slopes = temperature**2 * (math.log(2) - entropy), temperature * (0.5 - q)
        assert binary[0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert np.ravel(binary[1]) == pytest.approx(slopes, rel=1e-5, abs=1e-6)
        assert labels[0] == pytest.approx([expected.mean()], rel=1e-5)
        assert np.ravel(labels[1]) == pytest.approx(slopes / 4, rel=1e-5, abs=1e-6)
