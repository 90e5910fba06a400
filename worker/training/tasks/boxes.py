"""Boxes by their middles, without anchors: CenterNet (Zhou, Wang and Krähenbühl 2019).

Each place of the map has a logit for each class, that the middle of such a box lies in it, and four numbers: the
middle's offset within the place, and the logarithms of the box's width and height in places. A place is the more
excused for being taken for a middle the nearer it is to one: by a bell as wide and high as the box (Liu et al., TTFNet,
AAAI 2020, α = 0.54). Boxes are shares of the picture, so that nothing here depends on its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data.boxes import LEAST_LEFT, PAD
from app.spec.tasks.boxes import CLAIMED, MOST, PLACES
from worker.training.objectives import logits as soft_targets
from worker.training.scores import detection
from worker.training.scores.measures import Array, nothing_to_measure
from worker.training.tasks.dense import as_it_is

if TYPE_CHECKING:
    from app.spec.models import HeadSpec
    from worker.training.tasks.heads import Task

fit_scale = as_it_is

CONSTANT = "the mean box of each class, where most are"
METRICS, RELATIVE = {"map50": detection.MAP50}, None

WIDTH = 64
"""Channels of the hidden layer where a spec names none."""

RARE = -2.19
"""Added to every class logit: at first a middle is taken to be as rare as one place in ten (Lin et al. 2017, section
4.1)."""

BELL = 0.54 / 6
"""A bell's deviation, of the box's side."""

LARGEST = 6.0
"""Of the logarithm of a side in places, and the negative of its smallest."""

NOWHERE = -1e4
"""The logit of a place that is no peak: its probability is 0."""

GRID = 8


def targets(task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """The boxes as they are stored, (n, most, 5), those of rows without any label none; and which rows have one,
    (n,)."""
    mask = ~np.isnan(values).all(axis=(1, 2))
    return np.where(np.isnan(values), PAD, values).astype(np.float32), mask.astype(np.float32)


def moved(target: np.ndarray, maps: np.ndarray, side: Sequence[int]) -> np.ndarray:
    """The boxes of pictures that were moved: around the four corners where they now are, cut at the picture's edge. A box of which less
    than `LEAST_LEFT` is left is none any more.

    Args:
        target: (n, most, 5), as `targets` gives them. maps, side: as in `batches.Moved`.
    """
    height, width = side
    size = np.array([height, width], np.float64)
    edges = target[..., :4].astype(np.float64)
    corners = np.stack([edges[..., [1, 0]], edges[..., [1, 2]], edges[..., [3, 0]], edges[..., [3, 2]]], axis=2)
    read = (corners - 0.5) * size - maps[:, None, None, :, 2]  # pixels from the middle, down and across
    places = np.einsum("nij,nbcj->nbci", np.linalg.inv(maps[:, :, :2]), read) / size + 0.5
    low, high = places.min(axis=2), places.max(axis=2)
    inner = np.clip(low, 0, 1), np.clip(high, 0, 1)
    left = (inner[1] - inner[0]).prod(axis=-1) >= LEAST_LEFT * (high - low).prod(axis=-1)
    there = (target[..., 4:] >= 0) & left[..., None]
    boxes = np.concatenate([inner[0][..., ::-1], inner[1][..., ::-1], target[..., 4:]], axis=-1)
    return np.where(there, boxes, PAD).astype(np.float32)


def layers(task: Task, head: HeadSpec, dtype: Any) -> list[Any]:
    """A convolution of 3 × 3, then one of 1 × 1."""
    import keras

    width = head.units or WIDTH
    made: list[Any] = [
        keras.layers.Conv2D(
            width, 3, padding="same", activation=head.activation, name=f"{task.name}_hidden", dtype=dtype
        )
    ]
    if head.dropout:
        made.append(keras.layers.Dropout(head.dropout, name=f"{task.name}_dropout", dtype=dtype, seed=0))
    return [*made, keras.layers.Conv2D(task.units, 1, name=f"{task.name}_logits", dtype="float32")]


def loss(target: Any, mask: Any, logits: Any) -> tuple[Any, Any]:
    """The penalty-reduced focal loss (equation 1) of all places and classes, and the distance of the four numbers at
    the boxes' middles, both by the number of the picture's boxes."""
    from keras import ops

    classes = logits.shape[-1] - PLACES
    rows, columns = logits.shape[1], logits.shape[2]
    there = ops.cast(target[..., 4] >= 0, "float32")
    count = ops.maximum(ops.sum(there, axis=-1), 1.0)
    heat = _heat(target, there, rows, columns, classes)
    z = logits[..., :classes] + RARE
    p = ops.sigmoid(z)
    at_middle = ops.cast(heat >= 1.0, "float32")
    found = at_middle * ops.square(1 - p) * ops.log_sigmoid(z)
    missed = (1 - at_middle) * (1 - heat) ** 4 * ops.square(p) * ops.log_sigmoid(-z)
    focal = -ops.sum(found + missed, axis=(1, 2, 3))
    x, y, width, height = _in_places(target, rows, columns)
    column, row = _place(x, columns), _place(y, rows)
    wanted = ops.stack([x - column, y - row, _log(width), _log(height)], axis=-1)
    flat = ops.reshape(logits[..., classes:], (-1, rows * columns, PLACES))
    number = ops.cast(row * columns + column, "int32")
    told = ops.take_along_axis(flat, ops.repeat(number[..., None], PLACES, axis=-1), axis=1)
    distance = ops.sum(ops.abs(told - wanted) * there[..., None], axis=(1, 2))
    return (focal + distance) / count, mask


def divergence(student: Any, teachers: Sequence[Any], weights: Sequence[float], temperature: float) -> Any:  # noqa: ARG001
    """How far a student's map is from its teachers', (n,), by the number of middles that these see; 0 where it is their mean.

    Of each place and class the divergence of whether a middle is there, and the squared distance of the four numbers, as much as the
    teachers take the place for a middle: elsewhere they mean nothing. There is no temperature: it would raise the many places without a
    middle above the few with one.
    """
    from keras import ops

    classes = student.shape[-1] - PLACES
    shares = soft_targets.shares(weights)
    teachers = [ops.stop_gradient(teacher) for teacher in teachers]
    apart: Any = 0.0
    for sign in (1.0, -1.0):
        log_q = soft_targets.log_mean(
            [ops.log_sigmoid(sign * (each[..., :classes] + RARE)) for each in teachers], weights
        )
        apart = apart + ops.exp(log_q) * (log_q - ops.log_sigmoid(sign * (student[..., :classes] + RARE)))
    heat = sum(
        share * ops.max(ops.sigmoid(each[..., :classes] + RARE), axis=-1)
        for share, each in zip(shares, teachers, strict=True)
    )
    wanted = sum(share * each[..., classes:] for share, each in zip(shares, teachers, strict=True))
    distance = heat * ops.sum(ops.square(student[..., classes:] - wanted), axis=-1)
    total = ops.sum(apart, axis=(1, 2, 3)) + ops.sum(distance, axis=(1, 2))
    return soft_targets.not_negative(total / (1.0 + ops.sum(heat, axis=(1, 2))))


def _in_places(target: Any, rows: int, columns: int) -> tuple[Any, Any, Any, Any]:
    """The boxes' middles and sides, (n, most) each, in places of the map."""
    left, top, right, bottom = (target[..., edge] for edge in range(4))
    return (left + right) / 2 * columns, (top + bottom) / 2 * rows, (right - left) * columns, (bottom - top) * rows


def _place(middle: Any, places: int) -> Any:
    from keras import ops

    return ops.clip(ops.floor(middle), 0.0, places - 1.0)


def _log(side: Any) -> Any:
    from keras import ops

    return ops.clip(ops.log(ops.maximum(side, 1e-6)), -LARGEST, LARGEST)


def _heat(target: Any, there: Any, rows: int, columns: int, classes: int) -> Any:
    """(n, rows, columns, classes): how near each place is to a middle of each class, 1 at a middle itself, 0 far from
    all."""
    from keras import ops

    most = target.shape[1]
    x, y, width, height = _in_places(target, rows, columns)

    def bell(middle: Any, side: Any, places: int) -> Any:
        at = ops.arange(places, dtype="float32")
        apart = (at - _place(middle, places)[..., None]) / ops.maximum(BELL * side, 1e-3)[..., None]
        return ops.exp(-0.5 * ops.square(apart))

    bells = bell(y, height, rows)[..., :, None] * bell(x, width, columns)[..., None, :] * there[..., None, None]
    pictures = ops.cumsum(ops.ones_like(target[:, :, 4], dtype="int32"), axis=0) - 1
    segment = pictures * classes + ops.cast(ops.maximum(target[..., 4], 0.0), "int32")
    total = ops.shape(target)[0] * classes
    highest = ops.segment_max(ops.reshape(bells, (-1, rows, columns)), ops.reshape(segment, (-1,)), total)
    heat = ops.reshape(ops.maximum(highest, 0.0), (-1, classes, rows, columns))
    return ops.stop_gradient(ops.transpose(heat, (0, 2, 3, 1))) if most else ops.zeros_like(heat)


def answers(task: Task, logits: np.ndarray) -> np.ndarray:
    """(n, k, 6) from (n, rows, columns, units): left, top, right, bottom in shares of the picture, probability and
    class of the peaks, the most probable first. A peak is a place with no likelier neighbour of its class; where there
    are too few, the rest has probability 0."""
    classes = task.units - PLACES
    n, rows, columns, _ = logits.shape
    z = logits[..., :classes] + RARE
    wide = np.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    around = np.max([wide[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=0)
    peaks = np.where(z >= around, z, NOWHERE).reshape(n, -1)
    number = np.argsort(-peaks, axis=1, kind="stable")[:, :MOST]
    place, code = number // classes, number % classes
    told = np.take_along_axis(logits[..., classes:].reshape(n, rows * columns, PLACES), place[..., None], axis=1)
    x, y = (place % columns + told[..., 0]) / columns, (place // columns + told[..., 1]) / rows
    width, height = (np.exp(np.clip(told[..., 2 + side], -LARGEST, LARGEST)) / (columns, rows)[side] for side in (0, 1))
    edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    probability = 0.5 * (1 + np.tanh(0.5 * np.take_along_axis(peaks, number, axis=1)))
    return np.stack([*(np.clip(edge, 0, 1) for edge in edges), probability, code], axis=-1)


def output_layer(task: Task) -> Any:
    """`answers` of stock layers and operations."""
    classes = task.units - PLACES

    def peaks(logits: Any) -> Any:
        import keras
        from keras import ops

        rows, columns = logits.shape[1], logits.shape[2]
        z, where = ops.split(logits, [classes], axis=-1)
        z = z + RARE
        around = ops.max_pool(z, 3, strides=1, padding="same", data_format="channels_last")
        flat = ops.reshape(ops.where(z >= around, z, NOWHERE), (-1, rows * columns * classes))
        score, number = ops.top_k(flat, min(MOST, rows * columns * classes))
        place, code = ops.floor_divide(number, classes), ops.mod(number, classes)
        index = ops.repeat(ops.expand_dims(place, -1), PLACES, axis=-1)
        told = ops.take_along_axis(ops.reshape(where, (-1, rows * columns, PLACES)), index, axis=1)
        middle, sides = ops.split(told, 2, axis=-1)
        down, across = ops.floor_divide(place, columns), ops.mod(place, columns)
        scale = np.array([columns, rows], np.float32)
        middle = (middle + ops.cast(ops.stack([across, down], axis=-1), "float32")) / scale
        half = ops.exp(ops.clip(sides, -LARGEST, LARGEST)) / (2 * scale)
        edges = ops.clip(ops.concatenate([middle - half, middle + half], axis=-1), 0.0, 1.0)
        rest = ops.stack([ops.sigmoid(score), ops.cast(code, "float32")], axis=-1)
        return keras.layers.Concatenate(axis=-1, name=task.name, dtype="float32")([edges, rest])

    return peaks


def difference(ones: np.ndarray, others: np.ndarray) -> float:
    """How far the boxes that one program tells are from the nearest of the other's, in edges and probability; and the
    probabilities of each row's first box. Boxes of nearly one probability may stand in either order, and the improbable
    ones may come and go."""
    if not np.isfinite(ones).all():
        return np.nan
    worst = float(np.abs(ones[:, 0, 4] - others[:, 0, 4]).max(initial=0))
    for own, other in (pair for row in zip(ones, others, strict=True) for pair in (row, row[::-1])):
        told = own[own[:, 4] >= CLAIMED]
        apart = np.abs(told[:, None, :5] - other[None, :, :5]).max(axis=-1) + (told[:, None, 5] != other[None, :, 5])
        worst = max(worst, float(apart.min(axis=1, initial=1.0).max(initial=0)))
    return worst


def constant(task: Task, values: np.ndarray) -> np.ndarray:
    """A box for each class, of its mean width and height, in the square of an 8 × 8 grid where most middles are; as
    probable as a row has one there. (classes, 6)."""
    classes = task.units - PLACES
    boxes = values[values[..., 4] >= 0]
    answer = np.zeros((classes, 6))
    for code in range(classes):
        edges = boxes[boxes[:, 4] == code, :4].astype(np.float64)
        answer[code, 5] = code
        if len(edges):
            middle, half = (edges[:, 2:] + edges[:, :2]) / 2, (edges[:, 2:] - edges[:, :2]).mean(axis=0) / 2
            square = np.minimum(middle * GRID, GRID - 1).astype(np.int64) @ [1, GRID]
            within = square == np.bincount(square).argmax()
            at = middle[within].mean(axis=0)
            answer[code, :5] = [*np.clip([*(at - half), *(at + half)], 0, 1), min(1.0, within.sum() / len(values))]
    return answer


def shown(task: Task, values: np.ndarray) -> list[dict[str, Any]]:
    """The stored boxes of a row, (most, 5), as `prediction` has those of an answer: in shares, and without a probability."""
    classes = task.classes or ()
    return [{"label": classes[int(code)], "box": edges} for *edges, code in values.tolist() if code >= 0]


def metric(counts: Sequence[int] | None) -> str:  # noqa: ARG001
    return "map50"


def aligned(predicted: Array, target: Array) -> tuple[Array, Array, np.ndarray] | None:
    """Detections and boxes of each picture."""
    if predicted.ndim != 3 or target.ndim != 3 or (predicted.shape[-1], target.shape[-1]) != (6, 5):
        return None
    return predicted, target, np.asarray(~np.isnan(target).all(axis=(1, 2)))


def statistics(metric: str, predicted: Array, target: Array) -> Array:  # noqa: ARG001
    return detection.parts(detection.matched(predicted, target))


def undefined(metric: str, predicted: Array, target: Array) -> str | None:  # noqa: ARG001
    nothing = nothing_to_measure(predicted, target)
    return nothing or (None if (target[..., 4] >= 0).any() else "no test row has a box")


def figures(predicted: Array, target: Array, names: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of `BoxesFigures` beyond those of every type."""
    count = 1 + int(max(target[..., 4].max(initial=-1), predicted[..., 5].max(initial=-1)))
    return detection.figures(predicted, target, names or [str(code) for code in range(count)]), {}


def agreement(student: Array, teacher: Array) -> float | None:  # noqa: ARG001
    """Of boxes there are as many kinds as thresholds: none is told."""
    return None
