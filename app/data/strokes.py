"""`strokes`: digits drawn as pen strokes, as many as wanted, licence-free: a source domain for real handwriting.

Each digit has a few ways to be written; each way is a few strokes through control points. A picture jitters the control
points, slants, stretches and shifts the whole, and draws it with a pen of random width and softness. Only exactly rounded
arithmetic is used (no sine, no exponential, no matrix product), so that every machine draws the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SIDE = 28
SAMPLES = 56  # points along the pen's way; 56 leave no gaps at the thinnest pen
CHUNK = 64  # pictures drawn at once: their distance maps stay in the processor's cache

Point = tuple[float, float]
Stroke = tuple[
    bool, list[Point]
]  # (curved through its points, or straight between them; the points, x right, y down, in 0..1)


def draw(labels: np.ndarray, seed: int) -> np.ndarray:
    """One picture for each of `labels` (0..9): (n, 28, 28, 1) uint8, ink bright on black. The same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    way = rng.random(len(labels))
    pictures = np.zeros((len(labels), SIDE, SIDE, 1), np.uint8)
    for digit, variants in WAYS.items():
        for number, variant in enumerate(variants):
            chosen = (labels == digit) & (way * len(variants) >= number) & (way * len(variants) < number + 1)
            rows = np.flatnonzero(chosen)
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                pictures[some, :, :, 0] = _ink(_pen_ways(variant, len(some), rng), rng)
    return pictures


@dataclass(frozen=True)
class Way:
    """One way to write a digit: its control points, and how much of each control point every sampled point is."""

    controls: np.ndarray  # (k, 2)
    mixture: np.ndarray  # (SAMPLES, k), rows sum to 1


def _bell(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Mean 0, variance 1, bell-shaped, within ±3.5: a sum of uniforms, exact where a normal deviate would need a logarithm."""
    return np.asarray((rng.random((4, *shape)).sum(axis=0) - 2.0) * 1.7320508)


def _pen_ways(way: Way, n: int, rng: np.random.Generator) -> np.ndarray:
    """Where the pen was, in pixels: (n, SAMPLES, 2)."""
    controls = way.controls + 0.035 * _bell(rng, n, len(way.controls), 2)
    points = np.zeros((n, SAMPLES, 2))
    for k in range(len(way.controls)):
        points += way.mixture[None, :, k, None] * controls[:, None, k, :]
    points -= 0.5
    slant, tilt = 0.16 * _bell(rng, n, 1), 0.07 * _bell(rng, n, 1)
    x = points[:, :, 0] - slant * points[:, :, 1]
    y = points[:, :, 1] + tilt * points[:, :, 0]
    height = 19.0 + 6.0 * rng.random((n, 1))
    width = height * (0.70 + 0.35 * rng.random((n, 1)))
    middle = (SIDE - 1) / 2
    return np.stack([middle + x * width + 0.9 * _bell(rng, n, 1), middle + y * height + 0.9 * _bell(rng, n, 1)], axis=2)


def _ink(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pictures of pens that went along `points`: bright within the pen's radius, fading out softly beyond it."""
    n = len(points)
    pixel = np.arange(SIDE, dtype=np.float32)
    dx = (pixel - points[:, :, 0, None].astype(np.float32)) ** 2
    dy = (pixel - points[:, :, 1, None].astype(np.float32)) ** 2
    nearest = np.full((n, SIDE, SIDE), np.inf, np.float32)
    distance = np.empty_like(nearest)
    for sample in range(SAMPLES):
        np.add(dy[:, sample, :, None], dx[:, sample, None, :], out=distance)
        np.minimum(nearest, distance, out=nearest)
    radius = (0.3 + 1.3 * rng.random((n, 1, 1))).astype(np.float32)
    softness = (1.6 + 1.6 * rng.random((n, 1, 1))).astype(np.float32)
    brightness = (0.8 + 0.2 * rng.random((n, 1, 1))).astype(np.float32)
    fade = np.clip((np.sqrt(nearest) - radius) / softness, 0, 1)
    ink = brightness * (1 - fade * fade * (3 - 2 * fade))
    noise = 0.02 * rng.random((n, SIDE, SIDE)).astype(np.float32)
    return np.asarray(np.clip(ink + noise * (ink > 0), 0, 1) * 255, np.uint8)


def _way(text: str) -> Way:
    """Lays SAMPLES points along the strokes that `text` describes, each stroke as many as its length asks for."""
    strokes = [_stroke(part) for part in text.split("|")]
    lengths = [sum(_length(a, b) for a, b in pairwise(points)) for _, points in strokes]
    share = [max(4, int(SAMPLES * length / sum(lengths))) for length in lengths]
    share[int(np.argmax(share))] += SAMPLES - sum(share)
    total = sum(len(points) for _, points in strokes)
    mixture, first, row = np.zeros((SAMPLES, total)), 0, 0
    for (curved, points), samples in zip(strokes, share, strict=True):
        for sample in range(samples):
            for k, weight in _weights(curved, points, sample / (samples - 1)):
                mixture[row, first + k] += weight
            row += 1
        first += len(points)
    return Way(np.array([point for _, points in strokes for point in points]), mixture)


def _stroke(text: str) -> Stroke:
    """`~ 50,0 16,32` is a curve through two points, `- 50,0 16,32` a straight line; x and y in hundredths."""
    mark, *points = text.split()
    pairs = [point.split(",") for point in points]
    return mark == "~", [(int(x) / 100, int(y) / 100) for x, y in pairs]


def _length(a: Point, b: Point) -> float:
    return math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)


def _weights(curved: bool, points: list[Point], along: float) -> list[tuple[int, float]]:
    """The share of each control point in the point `along` (0..1, by length) a stroke: linear, or a Catmull-Rom spline."""
    spans = [_length(a, b) for a, b in pairwise(points)]
    left, k = along * sum(spans), 0
    while k < len(spans) - 1 and left > spans[k]:
        left -= spans[k]
        k += 1
    t = min(1.0, left / spans[k])
    if not curved:
        return [(k, 1 - t), (k + 1, t)]
    square, cube = t * t, t * t * t
    before, after = max(k - 1, 0), min(k + 2, len(points) - 1)
    return [
        (before, (-cube + 2 * square - t) / 2),
        (k, (3 * cube - 5 * square + 2) / 2),
        (k + 1, (-3 * cube + 4 * square + t) / 2),
        (after, (cube - square) / 2),
    ]


# fmt: off
_DRAWN: dict[int, list[str]] = {
    0: [
        "~ 50,0 28,10 16,32 15,60 27,90 50,100 73,90 85,62 84,33 71,8 52,0",
        "~ 50,0 34,10 24,32 24,60 33,90 50,100 67,90 76,62 76,33 66,8 52,0",
        "~ 60,3 35,12 20,45 25,85 48,100 75,82 80,45 66,10 45,4",
    ],
    1: [
        "- 50,0 50,50 50,100",
        "- 30,24 54,0 54,50 54,100",
        "- 32,20 52,0 52,50 52,100 | - 28,100 76,100",
        "- 36,34 58,2 50,50 44,100",
    ],
    2: [
        "~ 20,22 36,3 60,0 78,16 74,40 50,68 20,97 | - 20,98 50,98 84,97",
        "~ 24,14 46,0 70,10 74,34 56,66 30,94 16,90 24,78 44,90 66,100 86,92",
        "~ 26,8 50,0 72,12 68,42 42,74 24,96 | - 24,96 78,98",
    ],
    3: [
        "~ 22,12 46,0 72,10 72,34 46,47 | ~ 46,47 74,56 80,80 56,100 20,92",
        "- 24,2 76,2 46,42 | ~ 46,42 72,50 80,74 60,97 22,95",
        "~ 26,6 52,0 70,14 64,38 40,46 66,54 74,76 58,97 24,98",
    ],
    4: [
        "- 42,0 30,30 16,62 50,62 88,60 | - 66,30 64,65 62,100",
        "- 62,100 64,50 66,0 40,32 14,66 50,67 88,66",
        "~ 24,4 20,30 26,50 50,54 78,46 | - 78,4 76,50 70,100",
        "- 54,0 34,34 18,70 50,68 84,66 | - 56,44 54,72 50,100",
    ],
    5: [
        "- 80,2 50,2 28,3 25,24 22,45 | ~ 22,45 50,36 76,50 78,78 54,99 20,92",
        "~ 30,6 26,26 24,44 50,40 76,54 74,84 50,100 22,94 | - 30,4 54,3 82,0",
        "- 74,0 36,4 32,40 | ~ 32,40 58,42 70,64 60,90 26,100",
    ],
    6: [
        "~ 62,0 40,20 24,50 24,80 46,100 72,90 76,66 56,52 34,60 25,76",
        "~ 42,0 28,30 22,66 34,96 60,98 76,78 64,58 42,60 28,80",
        "~ 72,6 46,6 26,36 22,72 44,99 70,88 72,64 50,50 26,64",
    ],
    7: [
        "- 18,4 50,3 82,2 62,50 42,100",
        "- 20,4 50,2 80,2 62,50 44,100 | - 34,50 84,48",
        "~ 18,14 36,2 58,6 82,0 | ~ 82,0 66,30 54,64 48,100 | - 36,54 80,50",
    ],
    8: [
        "~ 70,12 50,0 30,12 34,34 52,48 72,66 70,90 50,100 28,90 28,68 48,50 68,32 70,12",
        "~ 50,0 30,10 28,32 50,46 70,32 70,10 50,0 | ~ 50,46 26,60 24,86 50,100 76,86 74,60 50,46",
        "~ 76,6 46,4 34,22 52,44 66,70 54,97 32,90 34,66 56,40 76,8",
    ],
    9: [
        "~ 74,12 50,0 28,14 26,38 48,50 70,36 76,12 75,50 66,100",
        "~ 72,10 48,0 28,18 32,42 54,46 72,26 76,10 80,50 70,88 46,100 24,92",
        "~ 70,20 52,2 32,10 30,34 52,44 70,20 | - 70,20 60,60 50,100",
    ],
}
# fmt: on

WAYS = {digit: [_way(text) for text in ways] for digit, ways in _DRAWN.items()}
