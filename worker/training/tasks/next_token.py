"""The byte, or token, that follows each one of a text: softmax cross-entropy, the mean over those of a row that are followed by one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data.source import blocks
from app.spec.tasks.next_token import BYTES, SMALLEST
from worker.training.scores.measures import Array, Metric, nothing_to_measure
from worker.training.tasks import tags
from worker.training.tasks.dense import as_it_is, dense

if TYPE_CHECKING:
    from app.data.source import Source
    from worker.training.tasks.heads import Task, Tokenizer

fit_scale, layers, loss, divergence = as_it_is, dense, tags.loss, tags.divergence
answers, output_layer, agreement = tags.answers, tags.output_layer, tags.agreement

CONSTANT, LINEAR = "the shares of bytes", "trigrams of bytes (Witten and Bell 1991)"
COMPRESSED = "deflate, as gzip has it, of each text alone behind the last 32 KiB of the training texts"
WINDOW = 2**15
OF_TOKENS = 2
"""The last side of reduced answers for tokens."""

MARGIN = 0.02
"""Of the control's bits: the smallest difference that matters."""


def _bits(sums: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / (sums[..., 1] * np.log(2)))


BITS_PER_BYTE = Metric("bits per byte", _bits, better="lower", share=False, margin=lambda control: MARGIN * control)
METRICS, RELATIVE = {"bits_per_byte": BITS_PER_BYTE}, None


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """Bytes or tokens, of the type of `values`, and each one's share of its row's loss, float32: 1 in sum where the row has any, else 0."""
    there = values >= 0
    shares = there / np.maximum(1, there.sum(axis=1, keepdims=True))
    return np.where(there, values, 0).astype(values.dtype), shares.astype(np.float32)


def in_tokens(values: np.ndarray, inputs: Source, tokenizer: Tokenizer) -> np.ndarray:
    """(n, tokens) int32 of the rows that have a label: the token that follows each one, -1 at the last and behind it."""
    labelled, place = np.flatnonzero((values >= 0).any(axis=1)), 0
    followed = np.full((len(values), tokenizer.length), -1, np.int32)
    for block in blocks(inputs, labelled):
        ids = _followed(tokenizer(block))
        followed[labelled[place : place + len(block)]] = np.where(ids > 0, ids, -1)
        place += len(block)
    return followed


def _followed(rows: np.ndarray) -> np.ndarray:
    """What follows each place of rows (n, places), int64; 0 behind the last."""
    return np.asarray(np.pad(rows, ((0, 0), (0, 1)))[:, 1:].astype(np.int64))


def reduced(answers: np.ndarray, rows: np.ndarray, tokenizer: Tokenizer | None = None) -> np.ndarray:
    """What scores need of answers (n, places, units) to stored rows: the probability of what followed, (n, places, 1).

    Of tokens (n, places, 2): besides, for how many bytes the token stands that followed; 0 where none did.
    """
    followed = _followed(rows if tokenizer is None else tokenizer(rows))
    given = np.asarray(np.take_along_axis(answers, followed[..., None], axis=-1))
    return given if tokenizer is None else np.concatenate([given, tokenizer.bytes_of[followed][..., None]], axis=-1)


def constant(task: Task, values: np.ndarray) -> np.ndarray:
    """The shares of bytes in the training rows, one more of each counted."""
    counts = np.bincount(values[values >= 0], minlength=task.units) + 1
    return counts / counts.sum()


def of_rows(task: Task, inputs: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:  # noqa: ARG001
    """Stored rows to the probability of each byte that followed, (n, bytes, 1), by the two bytes before it.

    Counts of trigrams, backed off to those of bigrams and of bytes: in each context the shorter one weighs as much as there are
    different bytes that followed. Before a text stands a zero.
    """
    counts = [np.zeros((BYTES**length, BYTES), np.float32) for length in range(3)]
    for row, codes in zip(inputs, values, strict=True):
        here = np.flatnonzero(codes >= 0)
        for table, context in zip(counts, _contexts(row, here), strict=True):
            np.add.at(table, (context, codes[here]), 1)
    totals, kinds = [table.sum(axis=1) for table in counts], [(table > 0).sum(axis=1) for table in counts]

    def answer(rows: np.ndarray) -> np.ndarray:
        given = np.full((*rows.shape, 1), 1 / BYTES)
        for row, into in zip(rows, given, strict=True):
            here = np.flatnonzero(row[1:])
            follows, share = row[here + 1], np.full(len(here), 1 / BYTES)
            for table, total, kind, context in zip(counts, totals, kinds, _contexts(row, here), strict=True):
                below = kind[context]
                seen = total[context] + below
                with np.errstate(invalid="ignore"):
                    share = np.where(seen > 0, (table[context, follows] + below * share) / seen, share)
            into[here, 0] = share
        return given

    return answer


def compressed(inputs: np.ndarray) -> tuple[int, Callable[[np.ndarray], float]]:
    """How many of the stored rows `inputs`, the last ones, fit into a compressor's window; and a function of other rows to the bits per
    byte that it then takes for each of them, without any header. It writes a text's first byte too, which a network is given."""
    texts = [_content(row) for row in inputs]
    reach = np.cumsum([len(text) + 1 for text in texts[::-1]])
    some = max(1, int(np.searchsorted(reach, WINDOW, side="right")))
    known = b"\n".join(texts[-some:])[-WINDOW:]

    def bits_per_byte(rows: np.ndarray) -> float:
        length = written = 0
        for text in map(_content, rows):
            deflate = zlib.compressobj(
                9, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, known
            )
            written += len(deflate.compress(text)) + len(deflate.flush())
            length += len(text)
        return 8 * written / length if length else float("nan")

    return some, bits_per_byte


def _content(row: np.ndarray) -> bytes:
    return row.tobytes().rstrip(b"\0")


def _contexts(row: np.ndarray, here: np.ndarray) -> list[np.ndarray]:
    """The numbers of the contexts of no, one and two bytes that end at these places."""
    last, before = row[here].astype(np.int64), np.pad(row, (1, 0))[here].astype(np.int64)
    return [np.zeros_like(last), last, BYTES * before + last]


def metric(counts: Sequence[int] | None) -> str:  # noqa: ARG001
    return "bits_per_byte"


def aligned(predicted: Array, target: Array) -> tuple[Array, Array, np.ndarray] | None:
    """Answers for each byte, whole or `reduced`, or for each token, reduced; a constant one, (n, 256), is for all."""
    predicted = predicted[:, None] if predicted.ndim == 2 else predicted
    fits = predicted.ndim == 3 and target.ndim == 2
    fits = fits and (predicted.shape[1] in (1, target.shape[1]) or predicted.shape[2] == OF_TOKENS)
    return (predicted, target, np.asarray((target >= 0).any(axis=1))) if fits else None


def statistics(metric: str, predicted: Array, target: Array) -> Array:  # noqa: ARG001
    """Nats, and bytes."""
    if predicted.shape[2] == OF_TOKENS:
        there, stand_for = predicted[..., 1] > 0, predicted[..., 1]
        nats = -np.log(np.maximum(predicted[..., 0], SMALLEST)) * there
        return np.stack([nats.sum(axis=1), stand_for.sum(axis=1)], axis=1).astype(np.float64)
    there = target >= 0
    if predicted.shape[2] > 1:
        codes = np.where(there, target, 0).astype(np.int64)[..., None]
        whole = np.broadcast_to(predicted, (*target.shape, predicted.shape[2]))
        predicted = np.take_along_axis(whole, codes, axis=-1)
    nats = -np.log(np.maximum(predicted[..., 0], SMALLEST))
    return np.stack([(nats * there).sum(axis=1), there.sum(axis=1)], axis=1).astype(np.float64)


def undefined(metric: str, predicted: Array, target: Array) -> str | None:  # noqa: ARG001
    return nothing_to_measure(predicted, target)


def figures(predicted: Array, target: Array, names: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:  # noqa: ARG001
    """The fields of `NextFigures` beyond those of every type."""
    sums = statistics("", predicted, target).sum(axis=0)
    bits = float(_bits(sums))
    found: dict[str, Any] = {"bits_per_byte": bits, "perplexity": 2**bits, "bytes": int(sums[1])}
    if predicted.shape[2] == OF_TOKENS:
        tokens = int((predicted[..., 1] > 0).sum())
        found |= {"perplexity": float(np.exp(sums[0] / tokens)) if tokens else None, "tokens": tokens}
    return found, {}
