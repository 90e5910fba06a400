"""The residual network of tables against the paper's formula, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.worker.training.small import ODD, TABLE, network
from worker.training.networks import build
from worker.training.networks.network import Network

pytestmark = pytest.mark.slow
EPSILON = 1e-3


def norm(x: np.ndarray, numbers: list[np.ndarray]) -> np.ndarray:
    gamma, beta, mean, variance = numbers
    return np.asarray((x - mean) / np.sqrt(variance + EPSILON) * gamma + beta)


def by_hand(made: Network, rows: np.ndarray, depth: int) -> np.ndarray:
    """x + Linear(ReLU(Linear(BatchNorm(x)))) a block, then ReLU(BatchNorm(x)), then the head."""
    at = made.weights
    x = rows @ at["table-first"][0] + at["table-first"][1]
    for number in range(1, depth + 1):
        kernel, bias = at[f"block{number}-dense1"]
        y = np.maximum(norm(x, at[f"block{number}-norm"]) @ kernel + bias, 0)
        kernel, bias = at[f"block{number}-dense2"]
        x = x + y @ kernel + bias
    kernel, bias = at["odd_logits"]
    return np.asarray(np.maximum(norm(x, at["table-norm"]), 0) @ kernel + bias)


def test_it_computes_the_papers_formula() -> None:
    words = {"arch": "table-resnet", "dim": 6, "depth": 3, "ratio": 2}
    made = network([ODD], 2, words, TABLE)
    rng = np.random.default_rng(5)
    made.weights = {
        name: [(array + rng.uniform(0.1, 0.5, array.shape)).astype(np.float32) for array in arrays]
        for name, arrays in made.weights.items()
    }
    rows = rng.standard_normal((9, 5)).astype(np.float32)
    told = build.keras_layers(made).forward.predict_on_batch(rows)["odd"]
    assert told == pytest.approx(by_hand(made, rows, 3), rel=1e-4, abs=1e-4)


def test_a_word_adds_a_vector_of_its_own_to_the_first_layer() -> None:
    """An embedding and a dense layer on one column for each word are one: row k of the kernel is word k's vector."""
    made = network([ODD], 2, {"arch": "table-resnet", "dim": 6, "depth": 1}, TABLE)
    first = build.keras_layers(made).layers["table-first"]
    words = np.eye(5, dtype=np.float32)[[3, 1, 3]]
    assert np.asarray(first(words)) == pytest.approx(made.weights["table-first"][0][[3, 1, 3]], abs=1e-6)
