"""Spans of tokens, scored as seqeval and conlleval do by default: right where the type and both ends are.

A token's tag is the one whose probability is largest, as the mean over the bytes of the token. Codes of tags are those of
`app.spec.tasks.tags`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.spec.tasks.tags import spans
from worker.training.scores.measures import Array, Metric


def _f1(sums: Array) -> Array:
    """2·right / (predicted + true), from (right, predicted, true) spans; 0 where there are none."""
    both = sums[..., 1] + sums[..., 2]
    return np.divide(2 * sums[..., 0], both, out=np.zeros_like(both), where=both > 0)


SPAN_F1 = Metric("span F1 (seqeval's default)", _f1)

Codes = NDArray[np.int64]


class Counts(NamedTuple):
    """Of each sentence and type, (n, types): spans that are right, predicted, true. And of each sentence, (n,), tokens that are
    right, and all."""

    right: Array
    predicted: Array
    true: Array
    tokens_right: Array
    tokens: Array


def sentences(probabilities: Array, codes: Array) -> Iterator[tuple[Codes, Codes]]:
    """(predicted, true) codes of the tokens of each row.

    Args:
        probabilities: (n, places, tags), each place for the same number of bytes. codes: (n, bytes), −1 where no token is.
    """
    size = codes.shape[1] // probabilities.shape[1]
    for each, own in zip(probabilities, codes.astype(np.int64), strict=True):
        edges = np.flatnonzero(np.diff(own >= 0, prepend=False, append=False))
        if not len(edges):
            yield edges, edges
            continue
        starts, ends = edges[::2], edges[1::2]
        by_byte = np.repeat(each, size, axis=0)[: ends[-1]]
        sums = np.add.reduceat(by_byte, edges[:-1], axis=0)[::2]
        yield np.argmax(sums / (ends - starts)[:, None], axis=1), own[starts]


def count(probabilities: Array, codes: Array) -> Counts:
    """The counts of each sentence."""
    n, kinds = len(codes), probabilities.shape[2] // 2
    right, predicted, true = (np.zeros((n, kinds)) for _ in range(3))
    tokens_right, tokens = np.zeros(n), np.zeros(n)
    for row, (ours, theirs) in enumerate(sentences(probabilities, codes)):
        claimed, there = set(spans(ours.tolist())), set(spans(theirs.tolist()))
        for into, found in ((right, claimed & there), (predicted, claimed), (true, there)):
            for *_, number in found:
                into[row, number] += 1
        tokens_right[row], tokens[row] = (ours == theirs).sum(), len(theirs)
    return Counts(right, predicted, true, tokens_right, tokens)
