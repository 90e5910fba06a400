"""Linear models of features: what a task's labels give away without any network. Fitted to the end, nothing drawn. NumPy only.

Both are scikit-learn's with its defaults (Pedregosa et al. 2011): `Ridge(alpha=1)` and `LogisticRegression(C=1)`, the intercept free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Linear = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Features (n, d) to scores (n, k)."""

STEPS = 100
REMEMBERED = 10
ENOUGH = 1e-3
"""The largest entry of the gradient of the summed loss at which the descent ends."""

Loss = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
"""Logits (n, k) to a loss summed over the rows, and its derivative by each logit."""


def ridge(x: NDArray[np.float32], y: NDArray[Any]) -> Linear:
    """Least squares, Σ(y − xw − b)² + ‖w‖², in closed form. x: (n, d), y: (n, k) without gaps."""
    centred, centre, mean = (
        x.astype(np.float64) - x.mean(axis=0, dtype=np.float64),
        x.mean(axis=0, dtype=np.float64),
        y.mean(axis=0),
    )
    rest = y - mean
    if len(x) < x.shape[1]:
        weights = centred.T @ np.linalg.solve(centred @ centred.T + np.eye(len(x)), rest)
    else:
        weights = np.linalg.solve(centred.T @ centred + np.eye(x.shape[1]), centred.T @ rest)
    return lambda rows: np.asarray((rows - centre) @ weights + mean)


def sigmoid(x: NDArray[np.float32], y: NDArray[Any]) -> Linear:
    """Logistic regression of each column of y, (n, k) of 0 and 1, NaN where it is not known: probabilities (n, k)."""
    there = np.isfinite(y)
    target = np.where(there, y, 0.0)

    def loss(logits: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        rows = np.logaddexp(0, logits) - target * logits
        return float((rows * there).sum()), (_logistic(logits) - target) * there

    scores = _fitted(x, y.shape[1], loss)
    return lambda rows: _logistic(scores(rows))


def softmax(x: NDArray[np.float32], codes: NDArray[Any], classes: int) -> Linear:
    """Multinomial logistic regression of class numbers (n,): probabilities (n, classes), 0 of a class that no row has."""
    present, own = np.unique(codes, return_inverse=True)
    target = np.eye(len(present))[own]

    def loss(logits: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shares = _shares(logits)
        return float(-np.log(np.maximum((shares * target).sum(axis=1), 1e-300)).sum()), shares - target

    scores = _fitted(x, len(present), loss)

    def probabilities(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        whole = np.zeros((len(rows), classes))
        whole[:, present] = _shares(scores(rows))
        return whole

    return probabilities


def _logistic(logits: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _shares(logits: NDArray[Any]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _fitted(x: NDArray[np.float32], outputs: int, loss: Loss) -> Linear:
    """The logits whose loss plus ½‖w‖² is least. Features are centred, which moves the intercept alone."""
    centre = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    inputs = np.hstack([x - centre, np.ones((len(x), 1), np.float32)])
    decay = np.ones((inputs.shape[1], 1))
    decay[-1] = 0

    def whole(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(inputs.shape[1], outputs)
        value, slope = loss((inputs @ weights.astype(np.float32)).astype(np.float64))
        gradient = inputs.T @ slope.astype(np.float32) + decay * weights
        return value + 0.5 * float((decay * weights**2).sum()), gradient.ravel()

    weights = _least(whole, np.zeros(inputs.shape[1] * outputs)).reshape(-1, outputs)
    return lambda rows: np.asarray((rows - centre) @ weights[:-1] + weights[-1])


def _least(
    of: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where a smooth convex function is least, by L-BFGS (Nocedal and Wright 2006, algorithms 7.4 and 7.5), steps halved until it falls."""
    moves: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    value, gradient = of(at)
    for _ in range(STEPS):
        if np.abs(gradient).max() < ENOUGH:
            break
        direction = -_newton(gradient, moves)
        fall, length = float(direction @ gradient), 1.0 if moves else 1 / (1 + float(np.abs(gradient).sum()))
        following, after = of(at + length * direction)
        while following > value + 1e-4 * length * fall and length > 1e-9:
            length /= 2
            following, after = of(at + length * direction)
        if following >= value:  # float32 can tell no more
            break
        moves.append((length * direction, after - gradient))
        moves = [pair for pair in moves[-REMEMBERED:] if pair[0] @ pair[1] > 0]
        at, value, gradient = at + length * direction, following, after
    return at


def _newton(
    gradient: NDArray[np.float64], moves: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> NDArray[np.float64]:
    """The gradient divided by the curvature that the last moves have met."""
    result, shares = gradient.copy(), list[float]()
    for step, change in reversed(moves):
        shares.append(float(step @ result / (step @ change)))
        result -= shares[-1] * change
    if moves:
        step, change = moves[-1]
        result *= float(step @ change / (change @ change))
    for (step, change), share in zip(moves, reversed(shares), strict=True):
        result += (share - float(change @ result / (step @ change))) * step
    return result
