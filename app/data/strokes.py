"""`strokes`: digits drawn as pen strokes, as many as wanted, licence-free: a source domain for real handwriting.

Each digit has a few ways to be written; each way is a few strokes through control points. A picture jitters the control
points, slants, stretches and shifts the whole, and draws it with a pen of random width and softness. Only exactly rounded
arithmetic is used (no sine, no exponential, no matrix product), so that every machine draws the same bytes.
"""

from __future__ import annotations

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


def _way(*strokes: Stroke) -> Way:
    """Lays SAMPLES points along the strokes, each stroke as many as its length asks for."""
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


def _length(a: Point, b: Point) -> float:
    return float(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5)


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
    before, after = max(k - 1, 0), min(k + 2, len(points) - 1)
    return [
        (before, (-(t**3) + 2 * t**2 - t) / 2),
        (k, (3 * t**3 - 5 * t**2 + 2) / 2),
        (k + 1, (-3 * t**3 + 4 * t**2 + t) / 2),
        (after, (t**3 - t**2) / 2),
    ]


def _curve(*points: Point) -> Stroke:
    return True, list(points)


def _lines(*points: Point) -> Stroke:
    return False, list(points)


_RING = [
    (0.5, 0.0),
    (0.28, 0.1),
    (0.16, 0.32),
    (0.15, 0.6),
    (0.27, 0.9),
    (0.5, 1.0),
    (0.73, 0.9),
    (0.85, 0.62),
    (0.84, 0.33),
    (0.71, 0.08),
    (0.52, 0.0),
]

WAYS: dict[int, list[Way]] = {
    0: [
        _way(_curve(*_RING)),
        _way(_curve(*[(0.5 + (x - 0.5) * 0.75, y) for x, y in _RING])),
        _way(
            _curve(
                (0.6, 0.03),
                (0.35, 0.12),
                (0.2, 0.45),
                (0.25, 0.85),
                (0.48, 1.0),
                (0.75, 0.82),
                (0.8, 0.45),
                (0.66, 0.1),
                (0.45, 0.04),
            )
        ),
    ],
    1: [
        _way(_lines((0.5, 0.0), (0.5, 0.5), (0.5, 1.0))),
        _way(_lines((0.3, 0.24), (0.54, 0.0), (0.54, 0.5), (0.54, 1.0))),
        _way(_lines((0.32, 0.2), (0.52, 0.0), (0.52, 0.5), (0.52, 1.0)), _lines((0.28, 1.0), (0.76, 1.0))),
        _way(_lines((0.36, 0.34), (0.58, 0.02), (0.5, 0.5), (0.44, 1.0))),
    ],
    2: [
        _way(
            _curve((0.2, 0.22), (0.36, 0.03), (0.6, 0.0), (0.78, 0.16), (0.74, 0.4), (0.5, 0.68), (0.2, 0.97)),
            _lines((0.2, 0.98), (0.5, 0.98), (0.84, 0.97)),
        ),
        _way(
            _curve(
                (0.24, 0.14),
                (0.46, 0.0),
                (0.7, 0.1),
                (0.74, 0.34),
                (0.56, 0.66),
                (0.3, 0.94),
                (0.16, 0.9),
                (0.24, 0.78),
                (0.44, 0.9),
                (0.66, 1.0),
                (0.86, 0.92),
            )
        ),
        _way(
            _curve((0.26, 0.08), (0.5, 0.0), (0.72, 0.12), (0.68, 0.42), (0.42, 0.74), (0.24, 0.96)),
            _lines((0.24, 0.96), (0.78, 0.98)),
        ),
    ],
    3: [
        _way(
            _curve((0.22, 0.12), (0.46, 0.0), (0.72, 0.1), (0.72, 0.34), (0.46, 0.47)),
            _curve((0.46, 0.47), (0.74, 0.56), (0.8, 0.8), (0.56, 1.0), (0.2, 0.92)),
        ),
        _way(
            _lines((0.24, 0.02), (0.76, 0.02), (0.46, 0.42)),
            _curve((0.46, 0.42), (0.72, 0.5), (0.8, 0.74), (0.6, 0.97), (0.22, 0.95)),
        ),
        _way(
            _curve(
                (0.26, 0.06),
                (0.52, 0.0),
                (0.7, 0.14),
                (0.64, 0.38),
                (0.4, 0.46),
                (0.66, 0.54),
                (0.74, 0.76),
                (0.58, 0.97),
                (0.24, 0.98),
            ),
        ),
    ],
    4: [
        _way(
            _lines((0.42, 0.0), (0.3, 0.3), (0.16, 0.62), (0.5, 0.62), (0.88, 0.6)),
            _lines((0.66, 0.3), (0.64, 0.65), (0.62, 1.0)),
        ),
        _way(_lines((0.62, 1.0), (0.64, 0.5), (0.66, 0.0), (0.4, 0.32), (0.14, 0.66), (0.5, 0.67), (0.88, 0.66))),
        _way(
            _curve((0.24, 0.04), (0.2, 0.3), (0.26, 0.5), (0.5, 0.54), (0.78, 0.46)),
            _lines((0.78, 0.04), (0.76, 0.5), (0.7, 1.0)),
        ),
        _way(
            _lines((0.54, 0.0), (0.34, 0.34), (0.18, 0.7), (0.5, 0.68), (0.84, 0.66)),
            _lines((0.56, 0.44), (0.54, 0.72), (0.5, 1.0)),
        ),
    ],
    5: [
        _way(
            _lines((0.8, 0.02), (0.5, 0.02), (0.28, 0.03), (0.25, 0.24), (0.22, 0.45)),
            _curve((0.22, 0.45), (0.5, 0.36), (0.76, 0.5), (0.78, 0.78), (0.54, 0.99), (0.2, 0.92)),
        ),
        _way(
            _curve(
                (0.3, 0.06),
                (0.26, 0.26),
                (0.24, 0.44),
                (0.5, 0.4),
                (0.76, 0.54),
                (0.74, 0.84),
                (0.5, 1.0),
                (0.22, 0.94),
            ),
            _lines((0.3, 0.04), (0.54, 0.03), (0.82, 0.0)),
        ),
        _way(
            _lines((0.74, 0.0), (0.36, 0.04), (0.32, 0.4)),
            _curve((0.32, 0.4), (0.58, 0.42), (0.7, 0.64), (0.6, 0.9), (0.26, 1.0)),
        ),
    ],
    6: [
        _way(
            _curve(
                (0.62, 0.0),
                (0.4, 0.2),
                (0.24, 0.5),
                (0.24, 0.8),
                (0.46, 1.0),
                (0.72, 0.9),
                (0.76, 0.66),
                (0.56, 0.52),
                (0.34, 0.6),
                (0.25, 0.76),
            )
        ),
        _way(
            _curve(
                (0.42, 0.0),
                (0.28, 0.3),
                (0.22, 0.66),
                (0.34, 0.96),
                (0.6, 0.98),
                (0.76, 0.78),
                (0.64, 0.58),
                (0.42, 0.6),
                (0.28, 0.8),
            )
        ),
        _way(
            _curve(
                (0.72, 0.06),
                (0.46, 0.06),
                (0.26, 0.36),
                (0.22, 0.72),
                (0.44, 0.99),
                (0.7, 0.88),
                (0.72, 0.64),
                (0.5, 0.5),
                (0.26, 0.64),
            )
        ),
    ],
    7: [
        _way(_lines((0.18, 0.04), (0.5, 0.03), (0.82, 0.02), (0.62, 0.5), (0.42, 1.0))),
        _way(
            _lines((0.2, 0.04), (0.5, 0.02), (0.8, 0.02), (0.62, 0.5), (0.44, 1.0)), _lines((0.34, 0.5), (0.84, 0.48))
        ),
        _way(
            _curve((0.18, 0.14), (0.36, 0.02), (0.58, 0.06), (0.82, 0.0)),
            _curve((0.82, 0.0), (0.66, 0.3), (0.54, 0.64), (0.48, 1.0)),
            _lines((0.36, 0.54), (0.8, 0.5)),
        ),
    ],
    8: [
        _way(
            _curve(
                (0.7, 0.12),
                (0.5, 0.0),
                (0.3, 0.12),
                (0.34, 0.34),
                (0.52, 0.48),
                (0.72, 0.66),
                (0.7, 0.9),
                (0.5, 1.0),
                (0.28, 0.9),
                (0.28, 0.68),
                (0.48, 0.5),
                (0.68, 0.32),
                (0.7, 0.12),
            )
        ),
        _way(
            _curve((0.5, 0.0), (0.3, 0.1), (0.28, 0.32), (0.5, 0.46), (0.7, 0.32), (0.7, 0.1), (0.5, 0.0)),
            _curve((0.5, 0.46), (0.26, 0.6), (0.24, 0.86), (0.5, 1.0), (0.76, 0.86), (0.74, 0.6), (0.5, 0.46)),
        ),
        _way(
            _curve(
                (0.76, 0.06),
                (0.46, 0.04),
                (0.34, 0.22),
                (0.52, 0.44),
                (0.66, 0.7),
                (0.54, 0.97),
                (0.32, 0.9),
                (0.34, 0.66),
                (0.56, 0.4),
                (0.76, 0.08),
            )
        ),
    ],
    9: [
        _way(
            _curve(
                (0.74, 0.12),
                (0.5, 0.0),
                (0.28, 0.14),
                (0.26, 0.38),
                (0.48, 0.5),
                (0.7, 0.36),
                (0.76, 0.12),
                (0.75, 0.5),
                (0.66, 1.0),
            )
        ),
        _way(
            _curve(
                (0.72, 0.1),
                (0.48, 0.0),
                (0.28, 0.18),
                (0.32, 0.42),
                (0.54, 0.46),
                (0.72, 0.26),
                (0.76, 0.1),
                (0.8, 0.5),
                (0.7, 0.88),
                (0.46, 1.0),
                (0.24, 0.92),
            )
        ),
        _way(
            _curve((0.7, 0.2), (0.52, 0.02), (0.32, 0.1), (0.3, 0.34), (0.52, 0.44), (0.7, 0.2)),
            _lines((0.7, 0.2), (0.6, 0.6), (0.5, 1.0)),
        ),
    ],
}
