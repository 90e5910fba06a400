"""Which tasks disturb each other: angles between their gradients on the shared layers, sampled over a fit.

A cosine below 0 means that a step for one task undoes part of a step for the other (Yu et al. 2020, definition 1). The sample is
the training batch at each evaluation, in inference mode, so that it changes no state and draws no random number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_PAIRS = 100
MEANING = (
    "cosine between two tasks' gradients on the shared layers: below 0, a step for one undoes part of a step for the other. "
    "effect_on: what the other task's gradient adds to a task's own progress, as a share of it"
)


class Conflicts:
    """Over samples, (6, K, K): their number, the sum of cosines, how many are below 0, the first, the last, the sum of dot products."""

    def __init__(self, tasks: Sequence[str]):
        self._tasks = list(tasks)
        self.sums = np.zeros((6, len(tasks), len(tasks)))

    def add(self, gram: np.ndarray | None) -> None:
        """`gram` (K, K): dot products of the tasks' gradients, nan for a task without labels in the batch."""
        if gram is None:
            return
        lengths = np.sqrt(np.diag(gram))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = gram / np.outer(lengths, lengths)
        finite = np.isfinite(cosines)
        cosines = np.where(finite, np.clip(cosines, -1, 1), 0.0)
        fresh = finite & (self.sums[0] == 0)
        self.sums[3] = np.where(fresh, cosines, self.sums[3])
        self.sums[4] = np.where(finite, cosines, self.sums[4])
        self.sums[:3] += np.stack([finite, cosines, cosines < 0])
        self.sums[5] += np.where(finite, gram, 0.0)

    def table(self) -> dict[str, Any] | None:
        """The pairs, the most opposed first, as JSON types; None where nothing was sampled."""
        pairs = [self._pair(i, j) for i in range(len(self._tasks)) for j in range(i) if self.sums[0, i, j]]
        if not pairs:
            return None
        pairs.sort(key=lambda pair: pair["cosine"])
        return {
            "meaning": MEANING,
            "sentence": _sentence(pairs[0]),
            "pairs": pairs[:MOST_PAIRS],
            "pairs_in_all": len(pairs),
        }

    def _pair(self, i: int, j: int) -> dict[str, Any]:
        n, cosines, below, first, last, _ = self.sums[:, i, j].tolist()
        products = self.sums[5]
        a, b = self._tasks[j], self._tasks[i]
        return {
            "tasks": [a, b],
            "cosine": round(cosines / n, 4),
            "first": round(first, 4),
            "last": round(last, 4),
            "below_0": round(below / n, 4),
            "samples": int(n),
            "effect_on": {a: _ratio(products[i, j], products[j, j]), b: _ratio(products[i, j], products[i, i])},
        }


def _ratio(product: float, own: float) -> float | None:
    return round(float(product / own), 4) if own > 0 else None


def _sentence(pair: dict[str, Any]) -> str:
    a, b = pair["tasks"]
    about = f"mean cosine {pair['cosine']:+.2f} of {pair['samples']} samples, below 0 in {pair['below_0']:.0%}"
    if pair["cosine"] >= 0:
        return f"No two tasks pull against each other on the whole; the least alike are {a} and {b}: {about}."
    return f"The tasks that disturb each other most are {a} and {b}: {about}."
