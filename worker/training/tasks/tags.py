"""A tag for each token of a text: softmax cross-entropy for each byte, the mean over the bytes of a token, then over the tokens of a row.

So a long token counts no more than a short one, and a long text no more than another. A trunk may have a place for several bytes; then the
logits of a place are those of each of its bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.spec.tasks.tags import TOKEN, types
from worker.training.objectives import logits as soft_targets
from worker.training.scores import classification, spans
from worker.training.scores.measures import Array, nothing_to_measure
from worker.training.tasks.dense import activation, as_it_is, dense

if TYPE_CHECKING:
    from worker.training.tasks.heads import Task

fit_scale, layers = as_it_is, dense

CONSTANT, LINEAR = "the most frequent tag", "the most frequent tag of each word"
METRICS, RELATIVE = {"span_f1": spans.SPAN_F1}, None


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """Codes (n, bytes) int16, and each byte's share of its row's loss, float32: 1 in sum where the row has a token, else 0."""
    there = values >= 0
    begins = there & ~np.pad(there, ((0, 0), (1, 0)))[:, :-1]
    number = np.cumsum(begins, axis=1)  # of the byte's token, from 1
    shares = np.zeros(values.shape, np.float32)
    for row, here in enumerate(there):
        if here.any():
            lengths = np.bincount(number[row, here])
            shares[row, here] = 1 / (lengths[number[row, here]] * number[row, -1])
    return np.where(there, values, 0).astype(np.int16), shares


def loss(target: Any, mask: Any, logits: Any) -> tuple[Any, Any]:
    from keras import ops

    log_p = _for_each(ops.log_softmax(logits, axis=-1), target.shape[1])
    each = -ops.take_along_axis(log_p, ops.expand_dims(ops.cast(target, "int32"), -1), axis=-1)[..., 0]
    return ops.sum(each * mask, axis=-1), ops.cast(ops.any(mask > 0, axis=-1), "float32")


def _for_each(values: Any, count: int) -> Any:
    """(n, count, …) of (n, places, …): each place's values for all that it stands for."""
    from keras import ops

    return values if values.shape[1] == count else ops.repeat(values, count // values.shape[1], axis=1)


def answers(task: Task, logits: np.ndarray) -> np.ndarray:  # noqa: ARG001
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def output_layer(task: Task) -> Any:
    return activation(task, "softmax")


def divergence(student: Any, teachers: Sequence[Any], weights: Sequence[float], temperature: float) -> Any:
    """The mean over all places, those behind a text's end among them, since nothing here knows where it ends: (n,).

    Of networks with different numbers of places the most count.
    """
    from keras import ops

    most = max(logits.shape[1] for logits in (student, *teachers))
    alike = [_for_each(logits, most) for logits in teachers]
    return ops.mean(soft_targets.divergence(_for_each(student, most), alike, weights, temperature), axis=-1)


def constant(task: Task, values: np.ndarray) -> np.ndarray:
    """The same for each place: the shares of the tags among tokens."""
    there = values >= 0
    begins = there & ~np.pad(there, ((0, 0), (1, 0)))[:, :-1]
    counts = np.bincount(values[begins], minlength=task.units)
    return counts / counts.sum()


def of_rows(task: Task, inputs: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Stored rows (n, bytes) to answers (n, bytes, units): the most frequent tag of each word of the training rows, and that of all words
    for one that none of them has."""
    known: dict[bytes, Counter[int]] = {}
    for row, codes in zip(inputs, values, strict=True):
        for match in TOKEN.finditer(row.tobytes()):
            if codes[match.start()] >= 0:
                known.setdefault(match.group(), Counter())[int(codes[match.start()])] += 1
    usual = int(constant(task, values).argmax())
    best = {word: counts.most_common(1)[0][0] for word, counts in known.items()}

    def answer(rows: np.ndarray) -> np.ndarray:
        given = np.zeros((*rows.shape, task.units), np.float32)
        for row, into in zip(rows, given, strict=True):
            for match in TOKEN.finditer(row.tobytes()):
                into[match.start() : match.end(), best.get(match.group(), usual)] = 1
        return given

    return answer


def metric(counts: Sequence[int] | None) -> str:  # noqa: ARG001
    return "span_f1"


def aligned(predicted: Array, target: Array) -> tuple[Array, Array, np.ndarray] | None:
    """Places that divide the bytes; a constant answer, (n, units), has one place."""
    predicted = predicted[:, None] if predicted.ndim == 2 else predicted
    fits = predicted.ndim == 3 and target.ndim == 2 and not target.shape[1] % predicted.shape[1]
    if not fits or (len(target) and target.max() >= predicted.shape[2]):
        return None
    return predicted, target, np.asarray((target >= 0).any(axis=1))


def statistics(metric: str, predicted: Array, target: Array) -> Array:  # noqa: ARG001
    """Spans that are right, predicted and true."""
    counts = spans.count(predicted, target)
    return np.stack([counts.right.sum(1), counts.predicted.sum(1), counts.true.sum(1)], axis=1)


def undefined(metric: str, predicted: Array, target: Array) -> str | None:  # noqa: ARG001
    return nothing_to_measure(predicted, target)


def figures(predicted: Array, target: Array, names: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of `TagFigures` beyond those of every type."""
    counts = spans.count(predicted, target)
    right, claims, support = (each.sum(axis=0).astype(int) for each in counts[:3])
    labels = types(names) if names is not None else [str(number) for number in range(len(right))]
    return {
        "span_f1": classification.f1(int(right.sum()), int(support.sum()), int(claims.sum())) or 0.0,
        "precision": float(right.sum() / claims.sum()) if claims.sum() else None,
        "recall": float(right.sum() / support.sum()) if support.sum() else None,
        "token_accuracy": float(counts.tokens_right.sum() / counts.tokens.sum()),
        "spans": int(support.sum()),
        "tokens": int(counts.tokens.sum()),
        "per_class": classification.per_class(labels, right, support, claims),
    }, {}


def agreement(student: Array, teacher: Array) -> float | None:
    """Of all places, those behind a text's end among them."""
    most = max(student.shape[1], teacher.shape[1])
    ours, theirs = (each.argmax(axis=-1).repeat(most // each.shape[1], axis=1) for each in (student, teacher))
    return float(np.mean(ours == theirs))
