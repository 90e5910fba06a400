"""Boxes found against boxes drawn: average precision as COCO measures it (Lin et al. 2014), equal to pycocotools' to
the last digits.

Detections of a picture are matched to its boxes of their class, the most probable first, each to the free box that it
covers best. Precision is read at 101 recalls, as the largest one from there on, and averaged; then over the classes
that occur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.spec.tasks.boxes import CLAIMED
from worker.training.scores.measures import Array, Metric

COVERED = np.linspace(0.5, 0.95, 10)
"""Intersection over union from which on a detection counts as a hit: `map50` takes the first, `map50_95` the mean over
all."""

RECALLS = np.linspace(0, 1, 101)
MOST_BINS, MOST_CELLS, FEWEST_BINS = 256, 1024, 8


@dataclass(frozen=True)
class Matched:
    """All detections of some pictures, the most probable first.

    `row` (d,): of which picture; `code` (d,): of which class; `score` (d,); `hit` (10, d): whether it is one, by
    `COVERED`. `boxes` (n, classes): how many are drawn on each picture."""

    row: NDArray[np.int64]
    code: NDArray[np.int64]
    score: Array
    hit: NDArray[np.bool_]
    boxes: NDArray[np.int64]


def matched(predicted: Array, target: Array) -> Matched:
    """Detections (n, k, 6) of left, top, right, bottom, score and class, those of score 0 none, against boxes (n, most,
    5), −1 where none."""
    there = target[..., 4] >= 0
    classes = 1 + int(max(target[..., 4].max(initial=-1), predicted[..., 5].max(initial=-1)))
    boxes = np.zeros((len(target), classes), np.int64)
    np.add.at(boxes, (np.nonzero(there)[0], target[..., 4][there].astype(np.int64)), 1)
    parts = [
        _of_picture(found[found[:, 4] > 0], drawn[drawn[:, 4] >= 0])
        for found, drawn in zip(predicted, target, strict=True)
    ]
    row = np.repeat(np.arange(len(parts)), [len(found) for found, _ in parts])
    found = np.concatenate([np.zeros((0, 6)), *(found for found, _ in parts)])
    hit = np.concatenate([np.zeros((len(COVERED), 0), bool), *(hits for _, hits in parts)], axis=1)
    order = np.argsort(-found[:, 4], kind="stable")
    return Matched(row[order], found[order, 5].astype(np.int64), found[order, 4], hit[:, order], boxes)


def _of_picture(found: Array, drawn: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The detections of one picture, the most probable first, and which of them are hits: (10, k)."""
    found = found[np.argsort(-found[:, 4], kind="stable")]
    hits = np.zeros((len(COVERED), len(found)), bool)
    if not len(drawn) or not len(found):
        return found, hits
    cover = np.where(found[:, None, 5] == drawn[None, :, 4], intersection_over_union(found[:, :4], drawn[:, :4]), -1.0)
    cover = cover[:, ::-1]  # of equal ones pycocotools takes the last
    taken = np.zeros((len(COVERED), len(drawn)), bool)
    levels = np.arange(len(COVERED))
    for number in np.flatnonzero(cover.max(axis=1) >= COVERED[0]):
        free = np.where(taken, -1.0, cover[number])
        best = free.argmax(axis=1)
        hits[:, number] = free[levels, best] >= COVERED
        taken[levels, best] |= hits[:, number]
    return found, hits


def intersection_over_union(ones: Array, others: Array) -> Array:
    """(a, b) of boxes (a, 4) and (b, 4)."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    area, other = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (ones, others))
    whole = area[:, None] + other[None, :] - both
    return np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)


def average_precision(hits: Array, misses: Array, boxes: Array) -> Array:
    """(…,) from the hits and misses of each step of falling probability, (…, steps), and the boxes there are, (…,); 0
    where there are none."""
    hits, misses = np.cumsum(hits, axis=-1), np.cumsum(misses, axis=-1)
    claims = hits + misses
    precision = np.divide(hits, claims, out=np.zeros_like(hits), where=claims > 0)
    recall = np.divide(hits, boxes[..., None], out=np.zeros_like(hits), where=boxes[..., None] > 0)
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    reached = np.searchsorted(RECALLS, recall, side="right")
    return np.asarray((best * np.diff(reached, axis=-1, prepend=0)).sum(axis=-1) / len(RECALLS))


def precisions(told: Matched) -> Array:
    """(10, classes) average precision; NaN of a class of which there is no box."""
    result = np.full((len(COVERED), told.boxes.shape[1]), np.nan)
    for code in np.flatnonzero(told.boxes.sum(axis=0)):
        hit = told.hit[:, told.code == code].astype(np.float64)
        total = np.full(len(COVERED), told.boxes[:, code].sum(), np.float64)
        result[:, code] = average_precision(hit, 1 - hit, total)
    return result


def _mean_precision(sums: Array) -> Array:
    """From the sums of `parts`: the mean over the classes that are drawn, of the bins, and what these leave out on all
    rows."""
    rows = np.maximum(sums[..., 0], 1)
    bins = int(np.rint((sums[..., 1] / rows).max()))
    classes = sums[..., 3:].reshape(*sums.shape[:-1], -1, 1 + 2 * bins)
    boxes, hits, misses = classes[..., 0], classes[..., 1 : 1 + bins], classes[..., 1 + bins :]
    each, there = average_precision(hits, misses, boxes), boxes > 0
    mean = (each * there).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
    return np.asarray(mean + sums[..., 2] / rows)


MAP50 = Metric("mAP50", _mean_precision)


def parts(told: Matched) -> Array:
    """The parts of `map50` that each picture has a share in, (n, 3 + classes · (1 + 2 · bins)).

    Of each class its boxes, and hits and misses in bins of falling probability, which end at every hit, or at every few
    of them where there are more than bins. Summed and read off step by step they give the average precision: exactly,
    but for what lies within a bin. How much that is on all rows is a part too, so that their value is exact, and
    resamples are moved by as much."""
    rows, classes = told.boxes.shape
    bins = max(FEWEST_BINS, min(MOST_BINS, MOST_CELLS // max(1, classes)))
    table = np.zeros((rows, classes, 1 + 2 * bins))
    table[..., 0] = told.boxes
    for code in range(classes):
        of_class = told.code == code
        hit, row = told.hit[0, of_class], told.row[of_class]
        next_hit = np.cumsum(hit) - hit  # a miss stands with the hit after it; those after the last one change nothing
        used = next_hit < hit.sum()
        place = next_hit[used] * bins // max(1, hit.sum()) if hit.sum() > bins else next_hit[used]
        np.add.at(table, (row[used], code, np.where(hit[used], 1, 1 + bins) + place), 1.0)
    known = np.zeros((rows, 3))
    known[:, :2] = 1, bins
    whole = np.hstack([known, table.reshape(rows, -1)])
    exact = precisions(told)[0]
    if rows and np.isfinite(exact).any():
        whole[:, 2] = np.nanmean(exact) - _mean_precision(whole.sum(axis=0))
    return whole


def figures(predicted: Array, target: Array, names: Sequence[str]) -> dict[str, Any]:
    """The fields of `BoxesFigures` beyond those of every type."""
    told = matched(predicted, target)
    each, boxes = precisions(told), told.boxes.sum(axis=0)
    there = np.isfinite(each[0])
    claimed = told.score >= CLAIMED
    claims, hits = int(claimed.sum()), int(told.hit[0, claimed].sum())
    return {
        "map50": float(each[0, there].mean()) if there.any() else None,
        "map50_95": float(each[:, there].mean()) if there.any() else None,
        "precision": hits / claims if claims else None,
        "recall": hits / int(boxes.sum()) if boxes.sum() else None,
        "drawn": int(boxes.sum()),
        "told": claims,
        "per_class": [
            {
                "class": name,
                "ap50": float(each[0, code]) if code < len(there) and there[code] else None,
                "ap50_95": float(each[:, code].mean()) if code < len(there) and there[code] else None,
                "support": int(boxes[code]) if code < len(boxes) else 0,
            }
            for code, name in enumerate(names)
        ],
    }
