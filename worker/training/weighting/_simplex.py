"""The smallest value of b·w + a·√(wᵀMw) over weights w ≥ 0 with sum 1: what MGDA (b = 0) and CAGrad ask of a Gramian M.

Convex. Solved by exact steps between two weights at a time: the one whose increase helps most and the one whose decrease
hurts least. Two tasks need one step.
"""

from __future__ import annotations

import math

import numpy as np

from worker.training.weighting import Numbers

TOLERANCE = 1e-10
STEPS_FOR_A_PAIR = 200


def least(gram: Numbers, b: Numbers | None = None, a: float = 1.0) -> Numbers:
    """The minimiser w (k,). `gram` (k, k) is positive semidefinite, a ≥ 0."""
    k = len(gram)
    b = np.zeros(k) if b is None else b
    w = np.zeros(k)
    w[np.argmin(b + a * np.sqrt(np.maximum(np.diag(gram), 0)))] = 1.0
    scale = float(np.abs(b).max()) + a * math.sqrt(max(float(np.trace(gram)), 0.0))
    for _ in range(STEPS_FOR_A_PAIR * k * k):
        along = gram @ w
        norm = math.sqrt(max(float(w @ along), 0.0))
        if norm <= TOLERANCE * scale:
            break
        slopes = b + a * along / norm
        grow = int(np.argmin(slopes))
        shrink = int(np.argmax(np.where(w > 0, slopes, -np.inf)))
        if slopes[shrink] - slopes[grow] <= TOLERANCE * scale:
            break
        way = np.zeros(k)
        way[grow], way[shrink] = 1.0, -1.0
        t = _line(float(b @ way), a, norm * norm, float(along @ way), float(way @ gram @ way), float(w[shrink]))
        w = w + t * way
        w[shrink] = max(w[shrink], 0.0)
        w /= w.sum()
    return w


def _line(slope: float, a: float, q0: float, q1: float, q2: float, longest: float) -> float:
    """Where slope·t + a·√(q0 + 2·q1·t + q2·t²) is least on [0, longest]; it falls at 0."""
    if q2 <= 0:
        return longest
    rest = max(q0 - q1 * q1 / q2, 0.0)
    steep = a * a * q2 - slope * slope
    if steep <= 0:  # the straight part outweighs the bent one everywhere
        return longest
    z = -slope * math.sqrt(rest / steep)
    return min(max((z * math.sqrt(q2) - q1) / q2, 0.0), longest)
