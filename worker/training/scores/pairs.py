"""Pairs of rows: of one identity or of two, told apart by a score. Area under the ROC curve and equal error rate.

Which rows make pairs follows from the labels and a fixed seed, so every arm, seed and attempt is measured on the same pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.training.scores.measures import Array, Metric

MOST_PAIRS = 20_000
"""Of one identity; of two there are as many."""

SEED = 0

Pairs = NDArray[np.int64]
"""(m, 2) row numbers, the first one less."""


def _area(sums: Array) -> Array:
    """From the sums of `parts`. On all rows exactly the area; on resampled ones what it is to first order (Hoeffding's projection)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        same = sums[..., 0] / sums[..., 1]
        different = sums[..., 2] / sums[..., 3]
        return np.asarray(same + 2 * (different - sums[..., 4] / sums[..., 5]))


ROC_AUC = Metric("ROC-AUC", _area)


@dataclass(frozen=True)
class Told:
    """The scores of the pairs of one identity and of two, with the rows that make them."""

    same: Pairs
    different: Pairs
    of_same: Array
    of_different: Array


def told(vectors: Array, identities: NDArray[Any]) -> Told:
    """The cosines of all pairs. vectors: (n, d); identities: (n,)."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    same, different = drawn(identities)
    return Told(same, different, _cosines(unit, same), _cosines(unit, different))


def drawn(identities: NDArray[Any]) -> tuple[Pairs, Pairs]:
    """The pairs of one identity, at most `MOST_PAIRS`; and as many pairs of two, or all there are."""
    rng = np.random.default_rng(SEED)
    order = np.argsort(identities, kind="stable")
    sizes = np.unique(identities, return_counts=True)[1] if len(identities) else np.zeros(0, np.int64)
    counts = sizes * (sizes - 1) // 2
    of_one, n = int(counts.sum()), len(identities)
    of_two = n * (n - 1) // 2 - of_one
    wanted = np.arange(of_one) if of_one <= MOST_PAIRS else np.sort(rng.choice(of_one, MOST_PAIRS, replace=False))
    group = np.searchsorted(np.cumsum(counts), wanted, "right")
    within = wanted - (np.cumsum(counts) - counts)[group]
    start = (np.cumsum(sizes) - sizes)[group]
    same = np.sort(order[_triangle(within) + start[:, None]], axis=1)
    return same, _of_two(identities, min(len(same), of_two), of_two, rng)


def _of_two(identities: NDArray[Any], wanted: int, of_two: int, rng: np.random.Generator) -> Pairs:
    """Different pairs of rows of two identities, `wanted` of the `of_two` there are."""
    n = len(identities)
    if 4 * wanted > of_two:  # most are taken: they are listed
        every = np.stack(np.triu_indices(n, 1), axis=1) if of_two else np.zeros((0, 2), np.int64)
        every = every[identities[every[:, 0]] != identities[every[:, 1]]]
        return np.asarray(every[np.sort(rng.choice(len(every), wanted, replace=False))], np.int64)
    numbers = np.zeros(0, np.int64)
    while len(numbers) < wanted:
        pairs = _triangle(rng.integers(0, n * (n - 1) // 2, 2 * wanted))
        apart = identities[pairs[:, 0]] != identities[pairs[:, 1]]
        both = np.concatenate([numbers, pairs[apart, 1] * n + pairs[apart, 0]])
        numbers = both[np.sort(np.unique(both, return_index=True)[1])][:wanted]
    return np.stack([numbers // n, numbers % n], axis=1)


def _triangle(numbers: NDArray[np.int64]) -> Pairs:
    """The pair (i, j), j < i, at each place of the order (1, 0), (2, 0), (2, 1), (3, 0), …"""
    first = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    first -= first * (first - 1) // 2 > numbers
    first += first * (first + 1) // 2 <= numbers
    return np.stack([first, numbers - first * (first - 1) // 2], axis=1)


def _cosines(unit: Array, pairs: Pairs) -> Array:
    return np.asarray((unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1))


def parts(pairs: Told, rows: int) -> Array:
    """The parts of the area that each row has a share in, (rows, 6).

    A pair of one identity counts for the share of the others that its score is above (DeLong et al. 1988), and stands with its first row. A
    pair of two identities stands with both of its rows, since it is there as often as both are drawn; hence the 2 in `_area`. The last two
    columns hold the area of all rows. Summed over identities this is the clustered variance of Obuchowski (1997).
    """
    above, below = _placements(pairs.of_same, pairs.of_different)
    table = np.zeros((rows, 6))
    np.add.at(table[:, 0], pairs.same[:, 0], above)
    np.add.at(table[:, 1], pairs.same[:, 0], 1.0)
    for end in (0, 1):
        np.add.at(table[:, 2], pairs.different[:, end], below)
        np.add.at(table[:, 3], pairs.different[:, end], 1.0)
    table[:, 4] = above.mean() if len(above) else np.nan
    table[:, 5] = 1.0
    return table


def _placements(same: Array, different: Array) -> tuple[Array, Array]:
    """Of each score the share of the other kind that it is on the right side of, ties a half."""

    def below(scores: Array, others: Array) -> Array:
        ordered = np.sort(others)
        ranks = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
        return np.asarray(ranks / (2 * max(1, len(others))))

    return below(same, different), below(-different, -same)


def equal_error(pairs: Told) -> tuple[float, float]:
    """(the equal error rate, the score at which it is): where the ROC curve, its points joined by lines, meets the falling diagonal."""
    scores = np.concatenate([pairs.of_same, pairs.of_different])
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    is_same = order < len(pairs.of_same)
    accepted = np.concatenate([[0.0], np.cumsum(~is_same)[ends] / len(pairs.of_different)])
    refused = np.concatenate([[1.0], 1 - np.cumsum(is_same)[ends] / len(pairs.of_same)])
    at = int(np.argmax(accepted >= refused))
    gap_before, gap_after = refused[at - 1] - accepted[at - 1], accepted[at] - refused[at]
    share = gap_before / (gap_before + gap_after)
    rate = accepted[at - 1] + share * (accepted[at] - accepted[at - 1])
    return float(rate), float(scores[order][ends[at - 1]])
